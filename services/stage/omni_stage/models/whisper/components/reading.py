"""One window while it is read. Mostly one pass does; where the model stops in the midst of a sentence, another goes on
from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_common.request import Word
from omni_stage.models.whisper.components import settings
from omni_stage.models.whisper.config import FRAMES_PER_SECOND
from omni_stage.models.whisper.payload_types import Passage, Window
from omni_stage.models.whisper.request_builders import Recognition

# Each pass moves on; a model that stops after every word or two would keep its batch waiting for as long.
_MOST_PASSES = 8


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the model made of a window's rest in one pass."""

    tokens: Sequence[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


def is_good(decoded: Decoded) -> bool:
    """By the measures of the reference code. Silence is good as it is: it is taken for silence."""
    is_guess = decoded.avg_logprob < settings.MIN_LOGPROB
    if is_guess and decoded.no_speech_prob > settings.MAX_NO_SPEECH:
        return True
    return not is_guess and decoded.compression_ratio <= settings.MAX_COMPRESSION_RATIO


def lesser_evil(*tries: Decoded) -> Decoded:
    """Of those that are not good, as in the reference: what the model is surest of, and rather not what repeats
    itself."""
    varied = [decoded for decoded in tries if decoded.compression_ratio <= settings.MAX_COMPRESSION_RATIO]
    return max(varied or tries, key=lambda decoded: decoded.avg_logprob)


@dataclass(slots=True)
class Reading:
    """`seek` is how far the window is read, in frames; `last_spoken` the end of the last word, in its seconds."""

    wanted: Recognition
    window: Window
    seek: int = 0
    passes: int = 0
    last_spoken: float = 0.0
    passages: list[Passage] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return self.window.features.shape[1]

    @property
    def is_over(self) -> bool:
        return self.seek >= self.frames or self.passes >= _MOST_PASSES

    @property
    def prompt(self) -> str:
        return "" if self.passes else self.window.prompt

    def rest(self) -> NDArray[np.float32]:
        features = self.window.features
        return np.frombuffer(features.data, np.float32).reshape(features.shape)[:, self.seek :]

    def advance(self, seek: int) -> None:
        """To the frame `seek`; to the end where that is no step forward."""
        self.passes += 1
        self.seek = seek if seek > self.seek else self.frames

    def add(self, part: Mapping[str, Any], decoded: Decoded) -> None:
        """One of the parts that faster-whisper splits a pass into; its times are seconds of the window."""
        self.passages.append(
            Passage(
                self._time(part["start"]),
                self._time(part["end"]),
                tuple(part["tokens"]),
                self.wanted.text_language,
                decoded.temperature,
                decoded.avg_logprob,
                decoded.compression_ratio,
                decoded.no_speech_prob,
                tuple(
                    Word(word["word"].strip(), self._time(word["start"]), self._time(word["end"]))
                    for word in part.get("words", ())
                ),
            )
        )

    def _time(self, seconds: float) -> float:
        """In the recording, and never behind the window's end: the model sees it padded to 30 seconds."""
        return round(self.window.start + min(float(seconds), self.window.seconds), 3)


def frames_to_seconds(frames: int) -> float:
    return frames / FRAMES_PER_SECOND
