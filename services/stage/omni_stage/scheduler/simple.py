"""Schedulers for stages that turn one payload into one result: preprocessing, encoders, joins.

The loop's thread keeps the queue and never computes; batches run in `threads` threads of their own, so that refusals
and drops of waiting requests are answered while the model works. What a batch made comes back to the loop, which
answers for each request of it. A request aborted while its batch runs is answered Dropped when the batch ends.

Such a stage has no chunks, so Pause and Resume mean nothing to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from omni_common.errors import OmniError, Overloaded
from omni_common.request import RequestKey
from omni_stage.core.batching import BatchLimits, BatchQueue
from omni_stage.scheduler.contract import Dropped, Failed, Incoming, Load, NewRequest, Outgoing, Pause, Result, Resume
from omni_stage.scheduler.meter import Meter
from omni_stage.scheduler.worker import Wait, Worker

Compute = Callable[[NewRequest], object]
BatchCompute = Callable[[Sequence[NewRequest]], Sequence[object | OmniError]]
Cost = Callable[[NewRequest], float]


class BatchScheduler(Worker):
    """Computes requests in batches: one value, or the error of that one request, for each, in their order.

    An exception of `compute_batch` fails the whole batch. `cost` puts a size to a request for `limits.max_cost`; it is
    called when the request arrives.
    """

    def __init__(
        self,
        compute_batch: BatchCompute,
        *,
        stage: str,
        max_waiting: int,
        limits: BatchLimits | None = None,
        cost: Cost | None = None,
        threads: int = 1,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(stage=stage, meter=meter)
        self._compute_batch = compute_batch
        self._limits = BatchLimits() if limits is None else limits
        self._cost = cost
        self._max_waiting = max_waiting
        self._threads = threads
        self._queue = BatchQueue(self._limits)
        self._running: dict[RequestKey, float] = {}  # since when
        self._dropped: set[RequestKey] = set()  # aborted while their batch runs
        self._busy = 0
        self._oldest: float | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"{stage}-compute")

    def last_step(self) -> float:
        """A batch that does not end holds the heartbeat back."""
        oldest = self._oldest
        return super().last_step() if oldest is None else oldest

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        if isinstance(item, Pause | Resume):
            return ()
        if not isinstance(item, NewRequest) or item.key in self._queue or item.key in self._running:
            self._meter.late()
            return ()
        room = self._max_waiting + (self._threads - self._busy) * self._limits.max_batch
        if len(self._queue) >= room:
            message = f"Stage '{self.stage}' has {len(self._queue)} requests waiting."
            return (Failed(item.key, Overloaded(message, stage=self.stage)),)
        cost = self._cost_of(item)
        if isinstance(cost, OmniError):
            return (Failed(item.key, cost),)
        self._queue.put(item, cost, time.monotonic())
        return ()

    def _drop(self, key: RequestKey) -> Sequence[Outgoing]:
        if key in self._running:
            self._dropped.add(key)
            return ()
        self._queue.remove(key)
        return (Dropped(key),)

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        now = time.monotonic()
        while self._busy < self._threads and (batch := self._queue.take(now)):
            self._begin(batch, now)
        # A batch that ends is something that arrives: with no thread free there is nothing to wait up for.
        return (), self._queue.due(now) if self._busy < self._threads else None

    def _current_load(self) -> Load:
        return Load(running=len(self._running), waiting=len(self._queue))

    def _close(self) -> None:
        self._pool.shutdown(wait=True)

    def _cost_of(self, request: NewRequest) -> float | OmniError:
        cost = self._cost
        return 0.0 if cost is None else self._attempt(lambda: cost(request))

    def _begin(self, batch: tuple[NewRequest, ...], now: float) -> None:
        self._busy += 1
        self._running.update((request.key, now) for request in batch)
        self._oldest = min(self._running.values())
        self._pool.submit(self._compute, batch)

    def _compute(self, batch: tuple[NewRequest, ...]) -> None:
        """Runs in a thread of the pool."""
        begun = time.monotonic()
        values = self._attempt(lambda: _checked(self._compute_batch(batch), len(batch)))
        seconds = time.monotonic() - begun
        each = [values] * len(batch) if isinstance(values, OmniError) else values
        outcomes = tuple(zip((request.key for request in batch), each, strict=True))
        self._put(lambda: self._finish(outcomes, seconds))

    def _finish(self, outcomes: Sequence[tuple[RequestKey, object]], seconds: float) -> Sequence[Outgoing]:
        self._busy -= 1
        self._meter.step([key for key, _ in outcomes], seconds)
        answers = [self._answer(key, value) for key, value in outcomes]
        self._oldest = min(self._running.values(), default=None)
        return answers

    def _answer(self, key: RequestKey, value: object) -> Outgoing:
        del self._running[key]
        if key in self._dropped:
            self._dropped.discard(key)
            return Dropped(key)
        return Failed(key, value) if isinstance(value, OmniError) else Result(key, value)


class SimpleScheduler(BatchScheduler):
    """Computes one request at a time in each of its threads."""

    def __init__(
        self, compute: Compute, *, stage: str, max_waiting: int, threads: int = 1, meter: Meter | None = None
    ) -> None:
        super().__init__(
            lambda batch: [compute(request) for request in batch],
            stage=stage,
            max_waiting=max_waiting,
            threads=threads,
            meter=meter,
        )


def _checked(values: Sequence[object], count: int) -> Sequence[object]:
    if len(values) != count:
        raise ValueError(f"A batch of {count} requests gave {len(values)} values.")
    return values
