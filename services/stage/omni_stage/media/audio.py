"""Encoded audio to samples: FFmpeg decodes, soxr resamples, piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from omni_common.request import Modality
from omni_common.tensor import DType, Tensor
from omni_stage.media import container, sniff, wav
from omni_stage.media.budget import Buffer, MediaBudget, Meter

Samples = NDArray[np.float32]

# What microphones and files have. A forged rate of 1 Hz would blow up 16,000-fold when resampled.
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 192_000


def decode_audio(data: Buffer, budget: MediaBudget, rate: int = 16_000, *, param: str | None = None) -> Tensor:
    """The sound as float32 mono samples in [-1, 1] at `rate` Hz; channels are averaged.

    Raises InvalidRequest, or OmniError REQUEST_TOO_LARGE when it exceeds the budget; both name `param`.
    """
    meter = budget.meter("audio", data, param)
    form = sniff.require(Modality.AUDIO, data, meter)
    if form.name == "WAV":
        wav.check_complete(data, meter)
    with container.opened(data, form, Modality.AUDIO, meter) as stream:
        track: _Track | None = None
        for frame in stream.container.decode(stream):
            meter.check_time()
            track = track or _Track(frame.sample_rate, rate, meter)
            track.add(frame)
        if track is None or not track.taken:
            raise meter.invalid("has no samples")
        container.check_complete(stream, form, track.seconds, meter)
        return track.finish()


class _Track:
    """The samples so far, mono and at the rate asked for."""

    def __init__(self, source_rate: int, rate: int, meter: Meter) -> None:
        if not _LOWEST_RATE <= source_rate <= _HIGHEST_RATE:
            raise meter.invalid(
                f"claims {source_rate} samples a second; {_LOWEST_RATE} to {_HIGHEST_RATE} are what is read here"
            )
        self.taken = 0
        self._source_rate = source_rate
        self._meter = meter
        self._resampler = None if source_rate == rate else soxr.ResampleStream(source_rate, rate, 1, dtype="float32")
        self._samples = bytearray()

    @property
    def seconds(self) -> float:
        return self.taken / self._source_rate

    def add(self, frame: Any) -> None:
        if frame.sample_rate != self._source_rate:
            raise self._meter.invalid("changes its sample rate midway")
        self.taken += frame.samples
        self._meter.check_seconds(self.seconds)
        mono = _mono(frame)
        if not np.isfinite(mono).all():
            raise self._meter.invalid("has samples that are not numbers")
        self._keep(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def finish(self) -> Tensor:
        if self._resampler is not None:
            self._keep(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        data = memoryview(self._samples)
        return Tensor(DType.FLOAT32, (data.nbytes // 4,), data)

    def _keep(self, samples: Samples) -> None:
        self._meter.spend_bytes(samples.nbytes)
        self._samples += samples.tobytes()


def _mono(frame: Any) -> Samples:
    raw = frame.to_ndarray()
    channels = raw if frame.format.is_planar else raw.reshape(frame.samples, -1).T
    return np.ascontiguousarray(_scaled(channels).mean(axis=0, dtype=np.float32))


def _scaled(samples: NDArray[Any]) -> NDArray[Any]:
    """Whatever the sample format, into [-1, 1]. FFmpeg gives 24-bit samples as the high bits of 32."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype.kind == "u":
        return (samples.astype(np.float32) - 128) / 128
    return samples.astype(np.float32) / (1 << (8 * samples.itemsize - 1))
