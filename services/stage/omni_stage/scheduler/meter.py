"""What a scheduler counts about its requests and its steps. All calls come from the scheduler's loop thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from omni_common.clock import Clock
from omni_common.request import RequestKey
from omni_common.telemetry import names
from omni_stage.scheduler.ar_contract import CacheUse
from omni_stage.scheduler.contract import Load
from omni_stage.spans import STAGE_SPANS


class Meter(Protocol):
    """Told by a scheduler what happens to its requests."""

    def arrived(self, key: RequestKey) -> None: ...

    def due(self, key: RequestKey, is_due: bool) -> None:
        """Whether the request could be worked on now; it may never have arrived."""

    def begin(self, keys: Sequence[RequestKey]) -> None:
        """What these requests waited with is worked on now."""

    def step(self, keys: Sequence[RequestKey], seconds: float) -> None:
        """One step, which took so long, has just run for these requests."""

    def ended(self, key: RequestKey) -> None:
        """The last answer about the request goes out; it may never have arrived."""

    def load(self, load: Load) -> None:
        """How many requests run and wait now."""

    def prompt(self, computed: int, reused: int) -> None:
        """A step ran so many tokens of prompts, beside those that earlier requests had left."""

    def caches(self, use: CacheUse, usage: float) -> None:
        """What the caches take now, and which part of those that may be there are."""

    def late(self) -> None:
        """Something came for a request that is not here (any more) and was ignored."""


class StageMeter:
    """Counts into the metrics of the process, by stage."""

    def __init__(self, stage: str, clock: Clock = time.monotonic) -> None:
        self._stage = stage
        self._clock = clock
        self._waiting_since: dict[RequestKey, float] = {}
        self._running_since: dict[RequestKey, float] = {}
        self._due_since: dict[RequestKey, float] = {}  # in this order
        self._oldest: float | None = None
        self._queue_seconds = names.STAGE_QUEUE_SECONDS.labels(stage)
        self._running_seconds = names.STAGE_RUNNING_SECONDS.labels(stage)
        self._batch_size = names.STAGE_BATCH_SIZE.labels(stage)
        self._step_seconds = names.STAGE_STEP_SECONDS.labels(stage)
        self._running = names.STAGE_RUNNING.labels(stage)
        self._waiting = names.STAGE_WAITING.labels(stage)
        self._late = names.LATE_EVENTS.labels(stage)
        names.STAGE_OLDEST_WAITING.labels(stage).set_function(self._oldest_waiting)

    def arrived(self, key: RequestKey) -> None:
        self._waiting_since[key] = self._clock()

    def due(self, key: RequestKey, is_due: bool) -> None:
        if not is_due:
            self.begin((key,))
        elif key in self._waiting_since or key in self._running_since:
            self._due_since.setdefault(key, self._clock())
            self._look_for_oldest()

    def begin(self, keys: Sequence[RequestKey]) -> None:
        for key in keys:
            self._due_since.pop(key, None)
        self._look_for_oldest()

    def _look_for_oldest(self) -> None:
        """Kept in one attribute, because a thread of the metrics' endpoint reads it."""
        self._oldest = next(iter(self._due_since.values()), None)

    def _oldest_waiting(self) -> float:
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    def step(self, keys: Sequence[RequestKey], seconds: float) -> None:
        self._batch_size.observe(len(keys))
        self._step_seconds.observe(seconds)
        begun = self._clock() - seconds
        for key in keys:
            arrived = self._waiting_since.pop(key, None)
            if arrived is not None:
                self._queue_seconds.observe(max(0.0, begun - arrived))
                self._running_since[key] = begun
                STAGE_SPANS.running(self._stage, key, seconds)

    def ended(self, key: RequestKey) -> None:
        self.begin((key,))
        self._waiting_since.pop(key, None)
        begun = self._running_since.pop(key, None)
        if begun is not None:
            self._running_seconds.observe(self._clock() - begun)

    def load(self, load: Load) -> None:
        self._running.set(load.running)
        self._waiting.set(load.waiting)

    def prompt(self, computed: int, reused: int) -> None:
        names.PROMPT_TOKENS.labels(self._stage, "computed").inc(computed)
        names.PROMPT_TOKENS.labels(self._stage, "prefix_hit").inc(reused)

    def caches(self, use: CacheUse, usage: float) -> None:
        names.KV_CACHE_TOKENS.labels(self._stage).set(use.tokens)
        names.KV_CACHE_BYTES.labels(self._stage).set(use.size)
        names.PREFIX_CACHE_BYTES.labels(self._stage).set(use.kept)
        names.KV_CACHE_USAGE.labels(self._stage).set(usage)

    def late(self) -> None:
        self._late.inc()
