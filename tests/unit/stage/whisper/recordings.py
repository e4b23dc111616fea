"""Recordings of real speech, and requests for what is said in them."""

from __future__ import annotations

import wave
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tests.unit.stage.media_files import FOLDER

from omni_common.request import (
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    RequestKey,
    Role,
    Sampling,
    Task,
    Text,
)
from omni_stage.scheduler.contract import NewRequest

RATE = 16_000
SAID = {
    "describe": "Please describe the picture in one sentence.",
    "greeting": "Good morning. How can I help you today?",
    "question": "What animal is in this picture?",
}
GREEDY = Sampling(temperature=0.0)


def pcm(name: str) -> NDArray[np.int16]:
    with wave.open(str(FOLDER / f"{name}.wav")) as file:
        assert file.getframerate() == RATE
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    return np.zeros(round(seconds * RATE), np.int16)


def spoken(*parts: str | float) -> NDArray[np.int16]:
    """Recordings by name, and seconds of silence."""
    return np.concatenate([pcm(part) if isinstance(part, str) else silence(part) for part in parts])


def conversation(seconds: float, gap: float = 0.7) -> NDArray[np.int16]:
    """The three, over and over."""
    parts: list[NDArray[np.int16]] = []
    while sum(map(len, parts)) < seconds * RATE:
        parts += [pcm(list(SAID)[len(parts) // 2 % 3]), silence(gap)]
    return np.concatenate(parts)


def request(file: bytes | memoryview, prompt: str = "", **params: object) -> GenerationRequest:
    told: Sequence[Message] = (Message(Role.SYSTEM, (Text(prompt, "prompt"),)),) if prompt else ()
    asked = Message(Role.USER, (Media(Modality.AUDIO, file, "file"),))
    settings = {"task": Task.TRANSCRIPTION, **params}
    return GenerationRequest("whisper", (*told, asked), GenerationParams(**settings))  # type: ignore[arg-type]


def arriving(file: bytes, prompt: str = "", **params: object) -> NewRequest:
    """As the preprocess stage gets it."""
    asked = request(file, prompt, **params)
    return NewRequest(RequestKey("request"), asked.params, asked)
