"""A deadline is set once and only shrinks: what is left of it is passed on, never a constant of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from omni_common.clock import Clock, monotonic


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on this process's clock."""

    at: float
    clock: Clock = monotonic

    @classmethod
    def after(cls, seconds: float, clock: Clock = monotonic) -> Self:
        return cls(clock() + seconds, clock)

    @property
    def remaining(self) -> float:
        """Seconds left; 0 once it has passed, so that it fits every `timeout`."""
        return max(0.0, self.at - self.clock())

    @property
    def passed(self) -> bool:
        return self.clock() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """This deadline, or the one `seconds` from now if that comes first."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)
