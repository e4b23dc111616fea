"""Schedulers for stages that turn one payload into one result: preprocessing, encoders, joins.

The loop's thread keeps the queue; batches run in a pool of `threads` threads (see `scheduler.pool`).

Such a stage has no chunks, so Pause and Resume mean nothing to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from omni_common.errors import OmniError
from omni_common.request import RequestKey
from omni_stage.core.batching import BatchLimits, BatchQueue
from omni_stage.scheduler.contract import Failed, Incoming, Load, NewRequest, Outgoing, Pause, Result, Resume
from omni_stage.scheduler.meter import Meter
from omni_stage.scheduler.pool import PoolWorker, one_each
from omni_stage.scheduler.worker import Wait

Compute = Callable[[NewRequest], object]
BatchCompute = Callable[[Sequence[NewRequest]], Sequence[object | OmniError]]
Cost = Callable[[NewRequest], float]


class BatchScheduler(PoolWorker):
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
        super().__init__(stage=stage, threads=threads, meter=meter)
        self._compute_batch = compute_batch
        self._limits = BatchLimits() if limits is None else limits
        self._cost = cost
        self._max_waiting = max_waiting
        self._queue = BatchQueue(self._limits)

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        if isinstance(item, Pause | Resume):
            return ()
        if not isinstance(item, NewRequest) or item.key in self._queue or item.key in self._under_way:
            self._meter.late()
            return ()
        room = self._max_waiting + (self._threads - self._busy) * self._limits.max_batch
        if len(self._queue) >= room:
            return self._refuse(item.key, len(self._queue))
        cost = self._cost_of(item)
        if isinstance(cost, OmniError):
            return (Failed(item.key, cost),)
        self._queue.put(item, cost, time.monotonic())
        return ()

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        now = time.monotonic()
        while self._busy < self._threads and (batch := self._queue.take(now)):
            keys = [request.key for request in batch]
            self._compute(keys, partial(self._values, batch), partial(self._answer, keys))
        # A batch that ends is something that arrives: with no thread free there is nothing to wait up for.
        return (), self._queue.due(now) if self._busy < self._threads else None

    def _is_due(self, key: RequestKey) -> bool:
        return key in self._queue

    def _current_load(self) -> Load:
        return Load(running=len(self._under_way), waiting=len(self._queue))

    def _forget(self, key: RequestKey) -> None:
        self._queue.remove(key)

    def _cost_of(self, request: NewRequest) -> float | OmniError:
        cost = self._cost
        return 0.0 if cost is None else self._attempt((request.key,), lambda: cost(request))

    def _values(self, batch: Sequence[NewRequest]) -> Sequence[object]:
        """Runs in a thread of the pool."""
        return one_each(self._compute_batch(batch), len(batch))

    def _answer(
        self, keys: Sequence[RequestKey], values: Sequence[object] | OmniError, seconds: float
    ) -> Sequence[Outgoing]:
        self._meter.step(keys, seconds)
        each = [values] * len(keys) if isinstance(values, OmniError) else values
        return [
            Failed(key, value) if isinstance(value, OmniError) else Result(key, value)
            for key, value in zip(keys, each, strict=True)
        ]


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
