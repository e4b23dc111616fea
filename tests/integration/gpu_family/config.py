"""The graph."""

from __future__ import annotations

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality

PIPELINE = PipelineConfig(
    name="gpus",
    entry="make",
    stages=(StageConfig(name="make", stream_to=("check",)), StageConfig(name="check", terminal=Modality.TEXT)),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.TEXT}),
)
