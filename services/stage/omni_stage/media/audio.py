"""Encoded audio to samples: FFmpeg decodes, soxr resamples, piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from omni_common.request import Modality
from omni_common.tensor import DType, Tensor
from omni_stage.media import container, mp3, sniff, wav
from omni_stage.media.budget import Buffer, MediaBudget, Meter

Samples = NDArray[np.float32]

# What microphones and files have. A forged rate of 1 Hz would blow up 16,000-fold when resampled.
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 192_000


def decode_audio(data: Buffer, budget: MediaBudget, rate: int = 16_000, *, param: str | None = None) -> Tensor:
    """The sound as float32 mono samples at `rate` Hz; channels are averaged. It is decoded from [-1, 1], which
    resampling may leave by a little.

    Raises InvalidRequest, or OmniError REQUEST_TOO_LARGE when it exceeds the budget; both name `param`.
    """
    meter = budget.meter("audio", data, param)
    samples = bytearray()
    for block in _blocks(data, meter, rate):
        meter.spend_bytes(block.nbytes)
        samples += block.tobytes()
    return Tensor(DType.FLOAT32, (len(samples) // 4,), memoryview(samples))


def audio_blocks(
    data: Buffer, budget: MediaBudget, rate: int = 16_000, *, param: str | None = None
) -> Generator[Samples, None, None]:
    """The same samples in blocks of about a second, each decoded when it is asked for: hours of sound in the memory
    of a few blocks. None is empty.

    The budget's seconds bound the whole sound, its wall time all decoding without the time between two blocks; its
    decoded bytes do not count, as nothing is kept. Raises like decode_audio; that a file was cut off may show only at
    its end. Closing the generator closes the decoder.
    """
    meter = budget.meter("audio", data, param)
    with closing(_blocks(data, meter, rate)) as blocks:
        for block in blocks:
            with meter.stopped():
                yield block


def _blocks(data: Buffer, meter: Meter, rate: int) -> Generator[Samples, None, None]:
    form = sniff.require(Modality.AUDIO, data, meter)
    if form.name == "WAV":
        wav.check_complete(data, meter)
    elif form.name == "MP3":
        mp3.check_complete(data, meter)
    with container.opened(data, form, Modality.AUDIO, meter) as stream:
        if stream.sample_rate:
            _check_rate(stream.sample_rate, meter)  # before its seconds are counted by it
        container.check_declared(stream, form, meter)
        track: _Track | None = None
        for frame in stream.container.decode(stream):
            meter.check_time()
            track = track or _Track(frame.sample_rate, rate, meter)
            yield from track.add(frame)
        if track is None or not track.taken:
            raise meter.invalid("has no samples")
        container.check_complete(stream, form, track.seconds, meter)
        yield from track.finish()


def _check_rate(rate: int, meter: Meter) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise meter.invalid(f"claims {rate} samples a second; {_LOWEST_RATE} to {_HIGHEST_RATE} are what is read here")


class _Track:
    """Decoded frames on their way to blocks, mono and at the rate asked for."""

    def __init__(self, source_rate: int, rate: int, meter: Meter) -> None:
        _check_rate(source_rate, meter)
        self.taken = 0
        self._source_rate = source_rate
        self._meter = meter
        self._resampler = None if source_rate == rate else soxr.ResampleStream(source_rate, rate, 1, dtype="float32")
        self._gathered: list[Samples] = []
        self._count = 0

    @property
    def seconds(self) -> float:
        return self.taken / self._source_rate

    def add(self, frame: Any) -> Iterator[Samples]:
        """The blocks that are full now. A frame may hold half an hour: it is taken a second at a time."""
        if frame.sample_rate != self._source_rate:
            raise self._meter.invalid("changes its sample rate midway")
        self.taken += frame.samples
        self._meter.check_seconds(self.seconds)
        raw = frame.to_ndarray()
        channels = raw if frame.format.is_planar else raw.reshape(frame.samples, -1).T
        for at in range(0, frame.samples, self._source_rate):
            with np.errstate(over="ignore"):  # what does not fit 32 bits is no number below
                mono = _scaled(channels[:, at : at + self._source_rate]).mean(axis=0, dtype=np.float32)
            self._gathered.append(mono)
            self._count += len(mono)
            if self._count >= self._source_rate:
                yield from self._block(last=False)

    def finish(self) -> Iterator[Samples]:
        return self._block(last=True)

    def _block(self, *, last: bool) -> Iterator[Samples]:
        mono = np.concatenate(self._gathered) if self._gathered else np.zeros(0, np.float32)
        self._gathered, self._count = [], 0
        if not np.isfinite(mono).all():
            raise self._meter.invalid("has samples that are not numbers")
        np.clip(mono, -1, 1, out=mono)
        block = mono if self._resampler is None else self._resampler.resample_chunk(mono, last=last)
        if block.size:
            yield block


def _scaled(samples: NDArray[Any]) -> NDArray[Any]:
    """Whatever the sample format, into [-1, 1]. FFmpeg gives 24-bit samples as the high bits of 32."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype.kind == "u":
        return (samples.astype(np.float32) - 128) / 128
    return samples.astype(np.float32) / (1 << (8 * samples.itemsize - 1))
