"""What a scheduler counts about its steps. Injected, so that a scheduler can run without a metrics registry."""

from __future__ import annotations

from typing import Protocol

from omni_stage.scheduler.contract import Load


class Meter(Protocol):
    """Called from the scheduler's own threads."""

    def step(self, size: int, seconds: float) -> None:
        """One step has run for `size` requests."""

    def load(self, load: Load) -> None:
        """How many requests run and wait now."""

    def late(self) -> None:
        """Something came for a request that is not here (any more) and was ignored."""


class NoMeter:
    """Counts nothing."""

    def step(self, size: int, seconds: float) -> None: ...

    def load(self, load: Load) -> None: ...

    def late(self) -> None: ...
