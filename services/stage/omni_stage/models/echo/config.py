"""Echo's graph of stages: a fan-out that a request may narrow, a join, a stream to two terminals."""

from __future__ import annotations

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality

SAMPLE_RATE = 24_000
SAMPLES_PER_WORD = 1920  # 80 ms, as one frame of a speech codec

PIPELINE = PipelineConfig(
    name="echo",
    entry="split",
    stages=(
        StageConfig(name="split", to=("upper", "count", "join"), placement_group="front"),
        StageConfig(name="upper", to=("join",), placement_group="front"),
        StageConfig(name="count", to=("join",), placement_group="front"),
        StageConfig(name="join", to=("say", "beep"), wait_for=("split", "upper", "count"), placement_group="front"),
        StageConfig(name="say", stream_to=("write", "beep"), placement_group="back"),
        StageConfig(name="write", terminal=Modality.TEXT, placement_group="back"),
        StageConfig(name="beep", terminal=Modality.AUDIO, needs=Modality.AUDIO, placement_group="back"),
    ),
    input_modalities=frozenset({Modality.TEXT, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO}),
    output_modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
    voices=("low", "high"),
    default_voice="low",
)
