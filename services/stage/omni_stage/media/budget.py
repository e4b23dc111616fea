"""What decoding one file may cost. A few KB can ask for hours and gigabytes, so the decoders count as they go.

`MediaBudget` holds the limits; a `Meter` is one decoding's account. It makes every error of this package, because it
knows what is decoded and which part of the request to name.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from omni_common.errors import InvalidRequest, OmniError, Reason

MIB = 1 << 20

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class MediaBudget:
    """Limits of one file."""

    max_bytes: int = 32 * MIB  # as long as a whole HTTP body may be
    max_pixels: int = 33_000_000  # of an image or a frame: an 8K picture, 99 MB as RGB
    max_frames: int = 768  # kept frames of a video: what the omni processors take at most
    max_seconds: float = 600.0  # of sound or film
    max_decoded_bytes: int = 512 * MIB  # 768 frames of 640 by 360
    max_wall: float = 30.0  # seconds that decoding itself may take
    clock: Callable[[], float] = field(default=time.monotonic, compare=False)

    def meter(self, noun: str, data: Buffer, param: str | None) -> Meter:
        """Opens the account of one file; raises when the file itself is empty or too long."""
        meter = Meter(self, noun, param)
        size = memoryview(data).nbytes
        if not size:
            raise meter.invalid("is empty")
        if size > self.max_bytes:
            raise meter.too_large(f"has {size:,} bytes; {self.max_bytes:,} are allowed")
        return meter


class Meter:
    """Counts what one decoding has cost so far, and raises when it is too much."""

    def __init__(self, budget: MediaBudget, noun: str, param: str | None) -> None:
        self.budget = budget
        self.noun = noun
        self._param = param
        self._decoded = 0
        self._frames = 0
        self._until = budget.clock() + budget.max_wall

    def check_time(self) -> None:
        if self.budget.clock() > self._until:
            raise self.too_large(f"takes more than {self.budget.max_wall:g} seconds to decode")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While others work, the clock stands still."""
        since = self.budget.clock()
        try:
            yield
        finally:
            self._until += self.budget.clock() - since

    def check_pixels(self, width: int, height: int) -> None:
        if width * height > self.budget.max_pixels:
            raise self.too_large(
                f"has {width} by {height} pixels, {width * height:,} in all; {self.budget.max_pixels:,} are allowed"
            )

    def check_seconds(self, seconds: float) -> None:
        if seconds > self.budget.max_seconds:
            raise self.too_large(f"lasts longer than {self.budget.max_seconds:g} seconds")

    def spend_bytes(self, count: int) -> None:
        """Before they are allocated."""
        self._decoded += count
        if self._decoded > self.budget.max_decoded_bytes:
            raise self.too_large(f"unpacks to more than {self.budget.max_decoded_bytes:,} bytes")

    def spend_frame(self) -> None:
        self._frames += 1
        if self._frames > self.budget.max_frames:
            raise self.too_large(f"has more than {self.budget.max_frames} frames at the rate asked for")

    def invalid(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"The {self.noun} {what}.", param=self._param)

    def too_large(self, what: str) -> OmniError:
        return OmniError(Reason.REQUEST_TOO_LARGE, f"The {self.noun} {what}.", param=self._param)


class TimedFile(io.BytesIO):
    """Looks at the clock whenever the decoder asks for more: decoders run long inside one call of ours."""

    def __init__(self, data: Buffer, meter: Meter) -> None:
        super().__init__(data)
        self._meter = meter

    def read(self, size: int | None = -1, /) -> bytes:
        self._meter.check_time()
        return super().read(size)
