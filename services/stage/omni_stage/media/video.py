"""Encoded video to the frames that are on screen at a given rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_common.request import Modality
from omni_common.tensor import DType, Tensor
from omni_stage.media import container, sniff
from omni_stage.media.budget import Buffer, MediaBudget, Meter


@dataclass(frozen=True, slots=True)
class Video:
    """`frames` is uint8 RGB [frames, height, width, 3]; `fps` is how many of them show one second."""

    frames: Tensor
    fps: float


def decode_video(data: Buffer, budget: MediaBudget, fps: float, *, param: str | None = None) -> Video:
    """Frames at `fps` a second, upright; all frames, and their own rate, of a video that has fewer.

    Raises InvalidRequest, or OmniError REQUEST_TOO_LARGE when it exceeds the budget; both name `param`.
    """
    meter = budget.meter("video", data, param)
    form = sniff.require(Modality.VIDEO, data, meter)
    with container.opened(data, form, Modality.VIDEO, meter) as stream:
        film = _Film(fps, meter)
        for frame in stream.container.decode(stream):
            meter.check_time()
            film.add(frame)
        if not film.kept:
            raise meter.invalid("has no frames")
        container.check_complete(stream, form, film.seconds, meter)
        return film.finish()


class _Film:
    """The frames kept so far. A frame is kept when it is the first at or after the next moment to show."""

    def __init__(self, fps: float, meter: Meter) -> None:
        self.kept = 0
        self._seen = 0
        self._fps = fps
        self._meter = meter
        self._start: float | None = None
        self._last = 0.0
        self._moment = 0  # in units of 1/fps: the next to show
        self._shape: tuple[int, ...] = ()
        self._pixels = bytearray()

    @property
    def seconds(self) -> float:
        """Up to the end of the last frame, which shows as long as the others on average."""
        return self._last * self._seen / (self._seen - 1) if self._seen > 1 else 1 / self._fps

    def add(self, frame: Any) -> None:
        self._meter.check_pixels(frame.width, frame.height)
        if frame.time is None:
            raise self._meter.invalid("has a frame without a time")
        self._start = frame.time if self._start is None else self._start
        time = frame.time - self._start
        self._meter.check_seconds(time)
        self._seen += 1
        self._last = max(self._last, time)
        # A thousandth of grace: times are rounded to the file's own ticks.
        moment = int(time * self._fps + 1e-3)
        if moment >= self._moment:
            self._moment = moment + 1
            self._keep(frame)

    def finish(self) -> Video:
        whole = self.kept == self._seen and self._seen > 1 and self._last > 0
        fps = min(self._fps, (self._seen - 1) / self._last) if whole else self._fps
        return Video(Tensor(DType.UINT8, (self.kept, *self._shape), memoryview(self._pixels)), fps)

    def _keep(self, frame: Any) -> None:
        self._meter.spend_frame()
        self._meter.spend_bytes(frame.width * frame.height * 3)
        # The file says how it was held; counter-clockwise, as numpy turns.
        upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        self._shape = self._shape or upright.shape
        if upright.shape != self._shape:
            raise self._meter.invalid("changes its frame size midway")
        self._pixels += np.ascontiguousarray(upright).data
        self.kept += 1
