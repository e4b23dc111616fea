"""Speech as the caller has it: a track that a new attempt's speech is held against."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from omni_common.request import AudioOutput, Output
from omni_coordinator.core.tracks import Differs, Replay

STRIDE = 61
"""Prime, so that no tone and no frame of a codec falls into step with it."""
MAX_SAMPLES = 1 << 18
"""Of those kept: eleven minutes of speech at 24 kHz, in half a megabyte."""
WINDOW = 32
"""Kept samples that are judged together: 80 ms at 24 kHz."""
TAIL = WINDOW * STRIDE
"""Samples at the end that are compared one by one: as much as may be left of a window."""
STEPS = 4
"""How many of the 65536 steps of a sample count as none."""
NOISE = 0.01
"""The power of the difference over that of the signal: speech from other codes has 1 to 2."""

_WIDTH = 2  # bytes of a sample


class SpeechTrack:
    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.count = 0
        self.kept = array("h")
        self.tail = b""

    def note(self, output: Output) -> bool:
        pcm = _samples(output, self.rate)
        if pcm is None or len(self.kept) > MAX_SAMPLES:
            return False
        self.kept.extend(_strided(pcm, self.count))
        self.count += len(pcm) // _WIDTH
        self.tail = (self.tail + pcm)[-TAIL * _WIDTH :]
        return True

    def replay(self) -> Replay:
        return _SpeechReplay(self.rate, self.count, self.kept[:], self.tail)


class _SpeechReplay:
    def __init__(self, rate: int, count: int, kept: Sequence[int], tail: bytes) -> None:
        self._rate = rate
        self._count = count
        self._kept = kept
        self._tail = tail
        self._at = 0
        self._compared = 0
        self._own_tail = b""
        self._window = _Likeness()
        self.is_through = not count

    def take(self, output: Output) -> Output | None:
        pcm = _samples(output, self._rate)
        if pcm is None:
            raise Differs
        cut = (self._count - self._at) * _WIDTH
        known, rest = pcm[:cut], pcm[cut:]
        for sample in _strided(known, self._at):
            self._window.add(self._kept[self._compared], sample)
            self._compared += 1
            if self._window.count == WINDOW:
                self._judge()
        self._at += len(known) // _WIDTH
        self._own_tail = (self._own_tail + known)[-TAIL * _WIDTH :]
        if self._at == self._count and not self.is_through:
            self._judge_tail()
            self.is_through = True
        return AudioOutput(rest, self._rate) if rest else None

    def _judge(self) -> None:
        window, self._window = self._window, _Likeness()
        if not window.is_close:
            raise Differs

    def _judge_tail(self) -> None:
        self._window = _Likeness()
        for mine, other in zip(memoryview(self._tail).cast("h"), memoryview(self._own_tail).cast("h"), strict=True):
            self._window.add(mine, other)
        self._judge()


class _Likeness:
    """Of two stretches of speech."""

    def __init__(self) -> None:
        self.count = 0
        self._power = 0
        self._noise = 0

    def add(self, sample: int, other: int) -> None:
        self.count += 1
        self._power += sample * sample
        self._noise += (sample - other) ** 2

    @property
    def is_close(self) -> bool:
        return self._noise <= self.count * STEPS**2 + NOISE * self._power


def _samples(output: Output, rate: int) -> bytes | None:
    """None for what is no speech of that rate."""
    if not isinstance(output, AudioOutput) or output.sample_rate != rate or len(output.pcm) % _WIDTH:
        return None
    return output.pcm


def _strided(pcm: bytes, before: int) -> Sequence[int]:
    """Of these samples, which follow `before` others, those that are kept."""
    return memoryview(pcm).cast("h")[-before % STRIDE :: STRIDE].tolist()
