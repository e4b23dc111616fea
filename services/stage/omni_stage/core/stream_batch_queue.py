"""Which items of a stage that computes the chunks of many streams together are in its next batch.

An item is one chunk of a request, with its cost. The rules:

* The items of a request are computed in their order. One that does not fit is not overtaken by those behind it.
* The batch is led by the next item of the request that has had the fewest computed so far, so that everybody's first
  output comes first; among equals the one that arrived first leads. Whatever it costs, it is in.
* The next items of the other requests join in the same order of preference, each if it fits. When all have been
  asked, the requests that are in may add further items in rounds, again in that order.
* A batch is padded to its dearest item: its cost is the number of its items times the largest of their costs. An item
  fits while that stays within `max_cost`, and while the largest cost is at most `max_spread` times the smallest, which
  bounds what padding wastes.
* Nobody starves: each batch that passes a request over is led by one that comes before it in the order of preference
  and thereby moves back, so the request leads after at most as many batches as those have items to catch up.
* A request takes one of the stage's places (see `core.places`) when it first has something to do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from omni_common.request import RequestKey
from omni_stage.core.places import Places


@dataclass(frozen=True, slots=True)
class StreamBatchLimits:
    """`max_cost` is in the units of the stage's own cost function. None: it does not count."""

    max_batch: int = 1
    max_cost: float | None = None
    max_spread: float | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1 or (self.max_spread is not None and self.max_spread < 1):
            raise ValueError("The limits must hold 1 <= max_batch and 1 <= max_spread.")


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One chunk that is computed now, the `index`-th of its request."""

    key: RequestKey
    source: str
    chunk: object
    index: int
    cost: float


@dataclass(frozen=True, slots=True)
class BatchStep:
    """What is computed together, and the requests that are complete with it; one without items may be among them."""

    items: tuple[BatchItem, ...]
    ending: tuple[RequestKey, ...]

    @property
    def keys(self) -> tuple[RequestKey, ...]:
        """All requests that have a part in it, each once."""
        return tuple(dict.fromkeys((*(item.key for item in self.items), *self.ending)))


@dataclass(slots=True)
class _Stream:
    items: deque[BatchItem] = field(default_factory=deque)
    arrived: int = 0
    done: set[str] = field(default_factory=set)

    @property
    def computed(self) -> int:
        return self.arrived - len(self.items)


@dataclass(slots=True)
class _Batch:
    limits: StreamBatchLimits
    items: list[BatchItem] = field(default_factory=list)
    largest: float = 0.0
    smallest: float = 0.0

    def take_next(self, items: deque[BatchItem]) -> bool:
        """Takes the first of the items, unless it does not fit or there is none."""
        if not items or (self.items and not self._fits(items[0].cost)):
            return False
        item = items.popleft()
        self.largest = max(self.largest, item.cost) if self.items else item.cost
        self.smallest = min(self.smallest, item.cost) if self.items else item.cost
        self.items.append(item)
        return True

    def _fits(self, cost: float) -> bool:
        limits, count = self.limits, len(self.items) + 1
        largest, smallest = max(self.largest, cost), min(self.smallest, cost)
        return (
            count <= limits.max_batch
            and (limits.max_cost is None or count * largest <= limits.max_cost)
            and (limits.max_spread is None or largest <= limits.max_spread * smallest)
        )


class StreamBatchQueue(Places[_Stream]):
    """The requests of one stage that batches over streams; `sources` is how many streams feed each of them."""

    def __init__(
        self,
        limits: StreamBatchLimits,
        *,
        max_running: int,
        max_waiting: int,
        sources: int = 1,
        one_per_request: bool = False,
    ) -> None:
        super().__init__(_Stream, max_running=max_running, max_waiting=max_waiting)
        if sources < 1:
            raise ValueError("A streaming stage is fed by at least one source.")
        self._limits = limits
        self._sources = sources
        self._one_per_request = one_per_request

    def push(self, key: RequestKey, source: str, chunk: object, cost: float) -> None:
        stream = self._here[key]
        stream.items.append(BatchItem(key, source, chunk, stream.arrived, cost))
        stream.arrived += 1

    def done(self, key: RequestKey, source: str) -> None:
        self._here[key].done.add(source)

    def next_step(self) -> BatchStep | None:
        """Takes the next batch; None when nobody can go on. The requests that it completes are to be ended after it."""
        batch = _Batch(self._limits)
        served: dict[RequestKey, _Stream] = {}
        for key, stream in sorted(self._here.items(), key=lambda entry: entry[1].computed):
            if self._may_be_served(key) and (batch.take_next(stream.items) or self._is_over(stream)):
                self._begun.add(key)
                served[key] = stream
        joining = [] if self._one_per_request else list(served.values())
        while joining:
            joining = [stream for stream in joining if batch.take_next(stream.items)]
        ending = tuple(key for key, stream in served.items() if self._is_over(stream))
        return BatchStep(tuple(batch.items), ending) if served else None

    def _is_over(self, stream: _Stream) -> bool:
        return len(stream.done) >= self._sources and not stream.items
