"""Steps from PCM to PCM, as streams: a model's rate becomes 24 kHz, speech becomes faster or slower.

However the samples are cut into pieces, what comes out, joined, is the same. A step belongs to one answer and blocks
as encoders do.
"""

from __future__ import annotations

from typing import Any, Protocol

import av
import numpy as np
from av.error import BlockingIOError as NeedsMore
from av.error import EOFError as Drained

from omni_gateway.audio.formats import SAMPLE_BYTES, SAMPLE_RATE

# What `Tempo` feeds its filter with at a time: 20 ms, so that little waits for the rest of a frame.
_FRAME_BYTES = SAMPLE_RATE // 50 * SAMPLE_BYTES
# Silence after the last sample that pushes the end of the speech out of the filters' windows of some 43 ms each.
_TAIL = bytes(10 * _FRAME_BYTES)


class PcmStep(Protocol):
    """Signed 16-bit little-endian mono PCM to the same."""

    def convert(self, pcm: bytes) -> bytes:
        """What these samples become as far as it is certain; may be empty."""

    def finish(self) -> bytes:
        """The rest. Nothing is converted afterwards."""


class Chain:
    """Several steps as one; without any, pieces are handed on untouched."""

    def __init__(self, *steps: PcmStep) -> None:
        self._steps = steps

    def convert(self, pcm: bytes) -> bytes:
        for step in self._steps:
            pcm = step.convert(pcm)
        return pcm

    def finish(self) -> bytes:
        tail = b""
        for step in self._steps:
            tail = step.convert(tail) + step.finish()
        return tail


def steps_to_caller(rate: int, speed: float) -> Chain:
    """From a model's PCM at `rate` to what is encoded: 24 kHz, `speed` times as fast."""
    steps: list[PcmStep] = []
    if rate != SAMPLE_RATE:
        steps.append(Resampler(rate))
    if speed != 1:
        steps.append(Tempo(speed))
    return Chain(*steps)


class Resampler:
    """Brings another sample rate to 24 kHz."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: Any = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def convert(self, pcm: bytes) -> bytes:
        return self._drain(frame_of(pcm, self._rate)) if pcm else b""

    def finish(self) -> bytes:
        return self._drain(None)

    def _drain(self, frame: Any) -> bytes:
        return b"".join(_samples(part) for part in self._resampler.resample(frame))


class Tempo:
    """Changes the tempo and keeps the pitch; `speed` is 0.25 to 4.

    FFmpeg's filter is some milliseconds off the exact length, and by how many depends on the pieces it is fed with. So
    it gets frames of one size, and what it makes is cut to length: n samples become n / speed.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._graph: Any = _tempo_graph(speed)
        self._rest = b""
        self._fed = 0
        self._taken = 0  # samples of PCM that came in
        self._given = 0  # samples that went out
        self._made = bytearray()

    def convert(self, pcm: bytes) -> bytes:
        self._taken += len(pcm) // SAMPLE_BYTES
        self._feed(self._rest + pcm)
        return self._give()

    def finish(self) -> bytes:
        if not self._taken:
            return b""
        self._feed(self._rest + _TAIL)
        self._graph.push(None)
        self._pull()
        return self._give()

    def _feed(self, pcm: bytes) -> None:
        whole = len(pcm) - len(pcm) % _FRAME_BYTES
        for start in range(0, whole, _FRAME_BYTES):
            frame = frame_of(pcm[start : start + _FRAME_BYTES], SAMPLE_RATE)
            frame.pts = self._fed
            self._fed += frame.samples
            self._graph.push(frame)
            self._pull()
        self._rest = pcm[whole:]

    def _pull(self) -> None:
        try:
            while True:
                self._made += _samples(self._graph.pull())
        except (NeedsMore, Drained):
            return

    @property
    def _due(self) -> int:
        """Bytes that may still go out for what has come in."""
        return (int(self._taken / self._speed) - self._given) * SAMPLE_BYTES

    def _give(self) -> bytes:
        given = bytes(self._made[: self._due])
        del self._made[: len(given)]
        self._given += len(given) // SAMPLE_BYTES
        return given


def _tempo_graph(speed: float) -> Any:
    # One filter does 0.5 to 2 well: it has no slower tempo, and at a faster one it skips samples.
    filters = [speed] if 0.5 <= speed <= 2 else [speed**0.5] * 2
    graph: Any = av.filter.Graph()
    graph.threads = 1
    nodes = [graph.add_abuffer(format="s16", sample_rate=SAMPLE_RATE, layout="mono")]
    nodes += [graph.add("atempo", repr(tempo)) for tempo in filters]
    nodes.append(graph.add("abuffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def frame_of(pcm: bytes, rate: int) -> Any:
    """PyAV's frame of these samples."""
    frame: Any = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None, :], format="s16", layout="mono")
    frame.sample_rate = rate
    return frame


def _samples(frame: Any) -> bytes:
    samples: bytes = frame.to_ndarray().astype("<i2", copy=False).tobytes()
    return samples
