"""Which sequences of an autoregressive stage step next.

A request waits (admitted, its prompt not run yet) and is then resident (prompt run, its cache held) until it ends.
One step runs the prompts of at most `max_prefill` waiting requests together with one more token for every resident
one that can go on: neither paused (its way out is full) nor starved (its next input is not there). The rules:

* At most `max_running` sequences are in one step. Residents that cannot go on lend their place, so that a slow reader
  holds nobody up; at most `max_resident` caches exist, because each takes memory.
* A request whose first step lacks input does not take a place. This keeps two stages that feed each other apart from
  deadlock: the places of the second are held only by requests that the first has begun, and so can go on.
* Nobody starves: waiting requests go in order of arrival past those that cannot start, residents in order of their
  last step, the longest ago first.
* More than `max_running + max_waiting` requests are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from omni_common.request import RequestKey
from omni_stage.scheduler.ar_contract import Batch


class ArQueue:
    """The requests of one autoregressive stage, by key; it knows no payload and no tensor."""

    def __init__(
        self, *, max_running: int, max_waiting: int, max_resident: int | None = None, max_prefill: int = 1
    ) -> None:
        # Twice the batch: half of the residents may stand still before the batch gets smaller.
        self._max_resident = 2 * max_running if max_resident is None else max_resident
        if not 1 <= max_prefill <= max_running <= self._max_resident:
            raise ValueError("The limits must hold 1 <= max_prefill <= max_running <= max_resident.")
        self._max_running = max_running
        self._capacity = max_running + max_waiting
        self._max_prefill = max_prefill
        self._waiting: dict[RequestKey, None] = {}
        self._resident: dict[RequestKey, None] = {}  # the one that stepped longest ago comes first
        self._paused: set[RequestKey] = set()

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._waiting or key in self._resident

    @property
    def keys(self) -> tuple[RequestKey, ...]:
        return (*self._resident, *self._waiting)

    @property
    def resident(self) -> int:
        return len(self._resident)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def usage(self) -> float:
        """The caches that there are, over the most that there may be."""
        return len(self._resident) / self._max_resident

    def may_step(self, key: RequestKey) -> bool:
        """Whether it is here and nothing but its input or a place can hold it up."""
        return key in self and key not in self._paused

    def admit(self, key: RequestKey) -> bool:
        """Takes the request in, or answers False when there is no room for it."""
        if len(self._waiting) + len(self._resident) >= self._capacity:
            return False
        self._waiting[key] = None
        return True

    def pause(self, key: RequestKey) -> None:
        if key in self:
            self._paused.add(key)

    def resume(self, key: RequestKey) -> None:
        self._paused.discard(key)

    def end(self, key: RequestKey) -> bool:
        """Forgets the request; False when it is not here (any more)."""
        if key not in self:
            return False
        self._waiting.pop(key, None)
        self._resident.pop(key, None)
        self._paused.discard(key)
        return True

    def next_batch(self, ready: Callable[[RequestKey], bool]) -> Batch | None:
        """The next step, or None when nothing can run until something arrives."""
        decode = self._first(self._resident, self._max_running, ready)
        room = min(self._max_prefill, self._max_running - len(decode), self._max_resident - len(self._resident))
        prefill = self._first(self._waiting, room, ready)
        return Batch(prefill=prefill, decode=decode) if prefill or decode else None

    def stepped(self, batch: Batch) -> None:
        """The batch has run: its prompts are resident now, and everyone in it queues up again at the end."""
        for key in batch.decode:
            del self._resident[key]
            self._resident[key] = None
        for key in batch.prefill:
            del self._waiting[key]
            self._resident[key] = None

    def _first(
        self, keys: dict[RequestKey, None], count: int, ready: Callable[[RequestKey], bool]
    ) -> tuple[RequestKey, ...]:
        taken: list[RequestKey] = []
        for key in keys:
            if len(taken) >= count:
                break
            if self.may_step(key) and ready(key):
                taken.append(key)
        return tuple(taken)
