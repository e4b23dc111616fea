"""What crosses Whisper's edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from omni_common.errors import Internal
from omni_common.request import Word
from omni_common.tensor import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """preprocess ⇢ transcribe: up to 30 seconds with speech, as log-mel features f32 [mels, frames of 10 ms].

    `start` is where they begin in the recording, in seconds. `prompt` is the caller's, in the first window only.
    """

    start: float
    seconds: float
    features: Tensor
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """preprocess ⇢ transcribe: a stretch without speech. There is nothing to do for it, but it keeps the turns of
    preprocess short, however long the silence is."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class End:
    """preprocess ⇢ transcribe ⇢ decode, last: how long the recording is."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Passage:
    """What is said between two times, in seconds from the start of the recording, and how sure the model is of it.

    `tokens` are text between tokens for times; the measures are those of its window.
    """

    start: float
    end: float
    tokens: tuple[int, ...]
    language: str
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Passages:
    """transcribe ⇢ decode: what is said in one window; the windows come in their order."""

    passages: tuple[Passage, ...]


PAYLOADS = (Window, Silence, End, Word, Passage, Passages)


def expect(value: object, kind: type[T]) -> T:
    """Raises Internal when a stage hands on something else than its edge declares."""
    if not isinstance(value, kind):
        raise Internal(f"A {kind.__name__} was expected on an edge of whisper, not a {type(value).__name__}.")
    return value
