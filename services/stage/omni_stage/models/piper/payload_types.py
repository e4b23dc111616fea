"""What crosses Piper's one edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from omni_common.errors import Internal
from omni_common.tensor import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sentence:
    """preprocess ⇢ synthesise: a sentence, or a part of one that is too long for one piece.

    `ids` int16 [n] are the voice's phoneme ids with their padding, `speaker` is a number of the voice's own, and
    `pause` says whether silence follows: after a sentence that is not the last.
    """

    ids: Tensor
    speaker: int
    pause: bool


PAYLOADS = (Sentence,)


def expect(value: object, kind: type[T]) -> T:
    """Raises Internal when a stage hands on something else than its edge declares."""
    if not isinstance(value, kind):
        raise Internal(f"A {kind.__name__} was expected on an edge of piper, not a {type(value).__name__}.")
    return value
