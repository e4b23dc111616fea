"""A clock that goes on only when it is told to."""

from __future__ import annotations


class ManualClock:
    """A `Clock` for tests."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Raises ValueError for a step back: a monotonic clock has none."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._now += seconds
