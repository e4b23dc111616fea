"""What crosses echo's edges."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from omni_common.errors import Internal
from omni_common.request import FinishReason, Modality, Usage
from omni_common.tensor import Tensor

T = TypeVar("T")


class Piece(StrEnum):
    """What stands at one place of the message."""

    WORD = "word"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Outline:
    """split → join: the order of the message's pieces, and whether they will be heard."""

    pieces: tuple[Piece, ...]
    spoken: bool


@dataclass(frozen=True, slots=True)
class Words:
    """split → upper → join."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    modality: Modality
    data: Tensor


@dataclass(frozen=True, slots=True)
class Files:
    """split → count."""

    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """count → join: one word for each file."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """join → say."""

    words: tuple[str, ...]
    spoken: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """join → beep: what the tones stand on."""

    base_hz: float


@dataclass(frozen=True, slots=True)
class Word:
    """say ⇢ write and say ⇢ beep. `finish` and `usage` are set in the last one."""

    text: str
    finish: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """What split makes of a request; its parts go to different stages."""

    outline: Outline
    words: Words
    files: Files


@dataclass(frozen=True, slots=True)
class Joined:
    """What join gets: the pieces in order, and the words of either kind."""

    outline: Outline
    words: tuple[str, ...]
    counts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What join makes of it; its parts go to different stages."""

    script: Script
    scale: Scale


PAYLOADS = (Outline, Words, File, Files, Counts, Script, Scale, Word, Usage)


def expect(value: object, kind: type[T]) -> T:
    """Raises Internal when a stage hands on something else than its edge declares."""
    if not isinstance(value, kind):
        raise Internal(f"A {kind.__name__} was expected on an edge of echo, not a {type(value).__name__}.")
    return value
