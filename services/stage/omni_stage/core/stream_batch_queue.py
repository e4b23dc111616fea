"""Which items of a stage that computes the chunks of many streams together are in its next batch.

An item is one chunk of a request, with its cost. The rules:

* The items of a request are computed in their order. One that does not fit is not overtaken by those behind it.
* The batch is led by the next item of the request that has had the fewest computed so far, so that everybody's first
  output comes first; among equals the one that arrived first leads. Whatever it costs, it is in.
* Nobody starves: every fourth batch is led by the request that has waited longest for its next item, so that a
  request leads after at most four batches for each of those that are here before it, whoever arrives meanwhile.
* The next items of the other requests join in the batch's order of preference, each if it fits. When all have been
  asked, the requests that are in may add further items in rounds, again in that order.
* An item that costs nothing is no work: it is always in, takes no room, and does not count as computed.
* A batch is padded to its dearest item: its cost is the number of its items times the largest of their costs. An item
  fits while that stays within `max_cost`, and while the largest cost is at most `max_spread` times the smallest, which
  bounds what padding wastes.
* A request takes one of the stage's places (see `core.places`) when it first has something to do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_common.request import RequestKey
from omni_stage.core.places import Places

# A newcomer's first item is at worst behind one more batch than without the rule; one batch in four keeps an old
# request going.
FAIR_EVERY = 4


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

    @property
    def work(self) -> tuple[BatchItem, ...]:
        """The items that cost something."""
        return tuple(item for item in self.items if item.cost)


@dataclass(slots=True)
class _Stream:
    """`since` is the number of batches there had been when it arrived, or was last in one."""

    since: int
    computed: int = 0
    items: deque[BatchItem] = field(default_factory=deque)
    arrived: int = 0
    done: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Batch:
    limits: StreamBatchLimits
    items: list[BatchItem] = field(default_factory=list)
    count: int = 0  # of those that cost something; so are these two
    largest: float = 0.0
    smallest: float = math.inf

    def take_next(self, stream: _Stream) -> bool:
        """Takes the stream's next item that is work, if it fits, and what is none before it; False for nothing."""
        taken = False
        while stream.items and self._fits(stream.items[0].cost):
            item, taken = stream.items.popleft(), True
            self.items.append(item)
            if item.cost:
                self.count += 1
                self.largest, self.smallest = max(self.largest, item.cost), min(self.smallest, item.cost)
                stream.computed += 1
                break
        return taken

    def _fits(self, cost: float) -> bool:
        if not (cost and self.count):
            return True
        limits, count = self.limits, self.count + 1
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
        super().__init__(lambda: _Stream(self._batches), max_running=max_running, max_waiting=max_waiting)
        if sources < 1:
            raise ValueError("A streaming stage is fed by at least one source.")
        self._limits = limits
        self._sources = sources
        self._one_per_request = one_per_request
        self._batches = 0

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
        for key, stream in self._in_order():
            if self._may_be_served(key) and (batch.take_next(stream) or self._is_over(stream)):
                self._begun.add(key)
                served[key] = stream
        joining = [] if self._one_per_request else list(served.values())
        while joining:
            joining = [stream for stream in joining if batch.take_next(stream)]
        self._count(batch)
        ending = tuple(key for key, stream in served.items() if self._is_over(stream))
        return BatchStep(tuple(batch.items), ending) if served else None

    def _in_order(self) -> Sequence[tuple[RequestKey, _Stream]]:
        """The requests by preference for the next batch."""
        if self._batches % FAIR_EVERY == FAIR_EVERY - 1:
            return sorted(self._here.items(), key=lambda entry: (entry[1].since, entry[1].computed))
        return sorted(self._here.items(), key=lambda entry: entry[1].computed)

    def _count(self, batch: _Batch) -> None:
        """What is no work is no turn: it neither moves its request back nor makes a batch."""
        if not batch.count:
            return
        self._batches += 1
        for item in batch.items:
            if item.cost:
                self._here[item.key].since = self._batches

    def _has_work(self, state: _Stream) -> bool:
        return bool(state.items) or self._is_over(state)

    def _is_over(self, stream: _Stream) -> bool:
        return len(stream.done) >= self._sources and not stream.items
