"""Qwen3-Omni's graph of stages. Needs no tensor library: the coordinator, the launcher and the chart read it too."""

from __future__ import annotations

import json
from pathlib import Path

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality, Task
from omni_stage.checkpoint import Checkpoint
from omni_stage.damaged import reading

SAMPLE_RATE = 24_000
SAMPLES_PER_FRAME = 1920  # 12.5 codec frames a second
VIDEO_FPS = 2.0  # as the model's authors sample videos; one temporal patch (two frames) is then one second

_MODEL_TYPE = "qwen3_omni_moe"

CHECKPOINT = Checkpoint(
    marks=("config.json", "*.safetensors"),
    files=("*.json", "*.safetensors", "*.txt", "*.jinja"),  # weights in any other format are code in disguise
    tiny="omni_stage.models.qwen3_omni.components.tiny",
)

PIPELINE = PipelineConfig(
    name="qwen3-omni",
    entry="preprocess",
    stages=(
        StageConfig(name="preprocess", to=("image_encoder", "audio_encoder", "aggregate"), placement_group="thinker"),
        StageConfig(name="image_encoder", to=("aggregate",), gpu=True, placement_group="thinker", max_running=4),
        StageConfig(name="audio_encoder", to=("aggregate",), gpu=True, placement_group="thinker", max_running=4),
        StageConfig(
            name="aggregate",
            to=("thinker", "talker"),
            wait_for=("preprocess", "image_encoder", "audio_encoder"),
            placement_group="thinker",
        ),
        StageConfig(
            name="thinker",
            stream_to=("decode", "talker"),
            gpu=True,
            tensor_parallel=True,
            placement_group="thinker",
            max_running=32,
        ),
        StageConfig(name="decode", terminal=Modality.TEXT, placement_group="thinker", max_running=64),
        StageConfig(
            name="talker",
            stream_to=("code2wav",),
            needs=Modality.AUDIO,
            gpu=True,
            placement_group="talker",
            max_running=32,
        ),
        StageConfig(
            name="code2wav",
            terminal=Modality.AUDIO,
            needs=Modality.AUDIO,
            gpu=True,
            placement_group="thinker",
            max_running=32,
        ),
    ),
    input_modalities=frozenset({Modality.TEXT, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO}),
    output_modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
    tasks=frozenset({Task.CHAT, Task.SPEECH}),
    voices=("chelsie", "ethan", "aiden"),
    default_voice="ethan",
)


def configure(folder: Path) -> PipelineConfig:
    """The graph, for weights that are of such a model. Raises ValueError with a sentence."""
    check_config(folder)
    return PIPELINE


def check_config(folder: Path) -> None:
    """Raises ValueError when the folder's config.json is not of Qwen3-Omni: whatever it lacks would be made up."""
    file = folder / "config.json"
    with reading(file, ValueError):
        told = json.loads(file.read_bytes())
    kind = told.get("model_type") if isinstance(told, dict) else None
    if kind != _MODEL_TYPE:
        raise ValueError(f"{file} is not of a Qwen3-Omni: its model_type is {kind}, not {_MODEL_TYPE}.")
