"""A recording of any length, cut into windows that the encoder takes; in the memory of one window.

A recording that fits one window is one, as it is. A longer one is cut where nobody speaks:

* a window begins shortly before speech, however long the silence before it, and holds up to 30 seconds;
* it ends in the longest silence that reaches into the later half of these; without one it ends after 30 seconds,
  within a word if need be;
* a stretch in which nobody speaks is no window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Span = tuple[int, int]
FindSpeech = Callable[[Samples], Sequence[Span]]
"""Where in some samples somebody speaks, in order; the spans do not touch."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """All in samples. `margin` is what is kept of a silence on either side of speech."""

    window: int
    margin: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some of the recording from the sample `start` on; without `samples` where nobody speaks in it."""

    start: int
    length: int
    samples: Samples | None = None


def cut(blocks: Iterator[Samples], find_speech: FindSpeech, cutting: Cutting) -> Iterator[Stretch]:
    """The windows, and longer silences, in order; the last stretch ends where the recording does.

    No more than about one window is read from `blocks` for each that is yielded.
    """
    tape = _Tape(blocks)
    while tape.fill(cutting.window + 1):  # one sample more tells whether the recording goes on
        samples, is_last = tape.samples[: cutting.window], tape.ahead <= cutting.window
        speech = find_speech(samples)
        if not speech:
            length = len(samples) if is_last else len(samples) - cutting.margin
            yield Stretch(tape.at, length)
        elif tape.at == 0 and is_last:
            length = len(samples)
            yield Stretch(0, length, samples)
        elif not is_last and (begin := speech[0][0] - cutting.margin) > cutting.window // 10:
            length = begin  # without it the window has more speech
            yield Stretch(tape.at, length)
        else:
            begin = max(0, speech[0][0] - cutting.margin)
            end = min(len(samples), speech[-1][1] + cutting.margin) if is_last else _end(samples, speech, cutting)
            length = end
            yield Stretch(tape.at + begin, end - begin, samples[begin:end])
            if is_last and end < len(samples):
                yield Stretch(tape.at + end, len(samples) - end)
                length = len(samples)
        tape.drop(length)


def _end(samples: Samples, speech: Sequence[Span], cutting: Cutting) -> int:
    ends = [end for _, end in speech]
    starts = [*(start for start, _ in speech[1:]), len(samples)]
    silences = [(start, end) for start, end in zip(ends, starts, strict=True) if end > max(start, cutting.window // 2)]
    if not silences:
        return len(samples)
    start, end = max(silences, key=lambda silence: (silence[1] - silence[0], silence[0]))
    return start + min(cutting.margin, (end - start) // 2)


class _Tape:
    """The samples that are read and not yet dropped; `at` is where in the recording they begin."""

    def __init__(self, blocks: Iterator[Samples]) -> None:
        self.at = 0
        self.samples: Samples = np.zeros(0, np.float32)
        self._blocks = blocks

    @property
    def ahead(self) -> int:
        return len(self.samples)

    def fill(self, count: int) -> bool:
        """Until there are so many, if the recording has them; False when there are none."""
        parts, there = [self.samples], self.ahead
        while there < count and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            there += len(block)
        self.samples = np.concatenate(parts)
        return self.ahead > 0

    def drop(self, count: int) -> None:
        self.at += count
        self.samples = self.samples[count:]
