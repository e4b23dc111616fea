"""What a scheduler counts about its requests and its steps. All calls come from the scheduler's loop thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from omni_common.clock import Clock
from omni_common.request import RequestKey
from omni_common.telemetry import names
from omni_stage.scheduler.contract import Load


class Meter(Protocol):
    """Told by a scheduler what happens to its requests."""

    def arrived(self, key: RequestKey) -> None: ...

    def step(self, keys: Sequence[RequestKey], seconds: float) -> None:
        """One step, which took so long, has just run for these requests."""

    def ended(self, key: RequestKey) -> None:
        """The last answer about the request goes out; it may never have arrived."""

    def load(self, load: Load) -> None:
        """How many requests run and wait now."""

    def late(self) -> None:
        """Something came for a request that is not here (any more) and was ignored."""


class StageMeter:
    """Counts into the metrics of the process, by stage."""

    def __init__(self, stage: str, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._waiting_since: dict[RequestKey, float] = {}
        self._running_since: dict[RequestKey, float] = {}
        self._queue_seconds = names.STAGE_QUEUE_SECONDS.labels(stage)
        self._running_seconds = names.STAGE_RUNNING_SECONDS.labels(stage)
        self._batch_size = names.STAGE_BATCH_SIZE.labels(stage)
        self._step_seconds = names.STAGE_STEP_SECONDS.labels(stage)
        self._running = names.STAGE_RUNNING.labels(stage)
        self._waiting = names.STAGE_WAITING.labels(stage)
        self._late = names.LATE_EVENTS.labels(stage)

    def arrived(self, key: RequestKey) -> None:
        self._waiting_since[key] = self._clock()

    def step(self, keys: Sequence[RequestKey], seconds: float) -> None:
        self._batch_size.observe(len(keys))
        self._step_seconds.observe(seconds)
        begun = self._clock() - seconds
        for key in keys:
            arrived = self._waiting_since.pop(key, None)
            if arrived is not None:
                self._queue_seconds.observe(max(0.0, begun - arrived))
                self._running_since[key] = begun

    def ended(self, key: RequestKey) -> None:
        self._waiting_since.pop(key, None)
        begun = self._running_since.pop(key, None)
        if begun is not None:
            self._running_seconds.observe(self._clock() - begun)

    def load(self, load: Load) -> None:
        self._running.set(load.running)
        self._waiting.set(load.waiting)

    def late(self) -> None:
        self._late.inc()
