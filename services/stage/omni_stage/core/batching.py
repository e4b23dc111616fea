"""When a batch of whole requests is complete, and who is in it.

Requests go in order of arrival. A batch is due when it is full by number or by cost, or when its oldest request has
waited `max_wait` seconds. A request that alone costs more than a batch may is a batch of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omni_common.request import RequestKey
from omni_stage.scheduler.contract import NewRequest


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_cost` is in the units of the stage's own cost function; None: only the number counts."""

    max_batch: int = 1
    max_wait: float = 0.0
    max_cost: float | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: NewRequest
    cost: float
    since: float


class BatchQueue:
    """The requests that wait for a batch."""

    def __init__(self, limits: BatchLimits) -> None:
        if limits.max_batch < 1:
            raise ValueError("A batch must hold at least one request.")
        self._limits = limits
        self._waiting: dict[RequestKey, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._waiting

    def put(self, request: NewRequest, cost: float, now: float) -> None:
        self._waiting[request.key] = _Waiting(request, cost, now)

    def remove(self, key: RequestKey) -> bool:
        """False when the request is not here (any more)."""
        return self._waiting.pop(key, None) is not None

    def due(self, now: float) -> float | None:
        """Seconds until a batch is due, 0 when one is; None when nobody waits."""
        if not self._waiting:
            return None
        batch = list(self._head())
        more = len(self._waiting) > len(batch)  # someone did not fit: it is full by cost or by number
        if more or self._is_full(batch):
            return 0.0
        return max(0.0, batch[0].since + self._limits.max_wait - now)

    def take(self, now: float) -> tuple[NewRequest, ...]:
        """The batch that is due; empty when none is."""
        if self.due(now) != 0.0:
            return ()
        batch = tuple(waiting.request for waiting in self._head())
        for request in batch:
            del self._waiting[request.key]
        return batch

    def _head(self) -> Iterator[_Waiting]:
        cost = 0.0
        for count, waiting in enumerate(self._waiting.values()):
            cost += waiting.cost
            too_dear = self._limits.max_cost is not None and cost > self._limits.max_cost
            if count == self._limits.max_batch or (count and too_dear):
                return
            yield waiting

    def _is_full(self, batch: list[_Waiting]) -> bool:
        full_cost = self._limits.max_cost is not None and sum(w.cost for w in batch) >= self._limits.max_cost
        return len(batch) >= self._limits.max_batch or full_cost
