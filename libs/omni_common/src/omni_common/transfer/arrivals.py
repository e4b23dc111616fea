"""Tensors that the relay has brought from other pods: they come before or after the events that refer to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omni.common.v1.tensor_pb2 import ArenaSlot, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena.reader import Released
from omni_common.clock import Clock
from omni_common.request import RequestKey
from omni_common.rpc.convert import parse_key

# Seconds that an arrival waits for a request that is not known here: longer than its envelope can be under way, since
# streams between stages break after 10 s without an answer.
KEEP = 60.0

Transfer = tuple[int, int]
"""The sending process, and its count."""


def transfer_of(message: TransferId) -> Transfer:
    return message.source, message.number


@dataclass(frozen=True, slots=True)
class Arrival:
    key: RequestKey
    slot: ArenaSlot
    length: int
    since: float


class Arrivals:
    """What has arrived at this process and is not taken, and who waits for what has not.

    What is held is bounded by the arena, whose slots it is in. It goes back when its request is over, or after KEEP
    where its request never came to be known. `released` is owed every slot that arrived, once: by whoever takes it,
    when its last view is gone, and by this class for all others.

    Belongs to the event loop.
    """

    def __init__(
        self,
        released: Released,
        *,
        is_over: Callable[[RequestKey], bool],
        is_known: Callable[[RequestKey], bool],
        clock: Clock,
    ) -> None:
        self.released = released
        self._is_over = is_over
        self._is_known = is_known
        self._clock = clock
        self._arrived: dict[Transfer, Arrival] = {}
        self._waiting: dict[Transfer, tuple[RequestKey, Callable[[RequestKey], None]]] = {}
        self._passed: dict[RequestKey, dict[int, int]] = {}

    def __len__(self) -> int:
        """Tensors that nobody has taken."""
        return len(self._arrived)

    def add(self, message: pod_pb2.Arrived) -> None:
        """A tensor has arrived."""
        key, transfer = parse_key(message.key), transfer_of(message.transfer)
        slot = ArenaSlot()
        slot.CopyFrom(message.slot)
        if self._is_over(key) or self._is_passed(transfer, key):
            self.released(slot)
            return
        if transfer in self._arrived:
            return  # told twice
        self._arrived[transfer] = Arrival(key, slot, message.length, self._clock())
        if (waiting := self._waiting.pop(transfer, None)) is not None:
            waiting[1](key)

    def has(self, transfer: Transfer) -> bool:
        return transfer in self._arrived

    def expect(self, transfer: Transfer, key: RequestKey, arrived: Callable[[RequestKey], None]) -> None:
        """Calls back when it has arrived, unless its request is over before."""
        self._waiting[transfer] = (key, arrived)

    def take(self, transfer: Transfer, key: RequestKey) -> Arrival | None:
        """The transfer's event is read now: the arrival, which the caller releases, or None where the bytes have come
        another way; then it goes back should it come yet. A request's transfers are taken in the order of their
        numbers, one event's at a time."""
        source, number = transfer
        passed = self._passed.setdefault(key, {})
        passed[source] = max(number, passed.get(source, 0))
        self._waiting.pop(transfer, None)
        return self._arrived.pop(transfer, None)

    def give_up(self, transfer: Transfer) -> None:
        """Its event will not be read."""
        self._waiting.pop(transfer, None)
        if (arrival := self._arrived.pop(transfer, None)) is not None:
            self.released(arrival.slot)

    def drop(self, key: RequestKey) -> None:
        """The request is over."""
        self._passed.pop(key, None)
        for transfer in [transfer for transfer, (of, _) in self._waiting.items() if of == key]:
            del self._waiting[transfer]
        for transfer in [transfer for transfer, arrival in self._arrived.items() if arrival.key == key]:
            self.released(self._arrived.pop(transfer).slot)

    def sweep(self) -> None:
        """Gives back what came for requests that never did."""
        late = self._clock() - KEEP
        for transfer, arrival in list(self._arrived.items()):
            if arrival.since < late and not self._is_known(arrival.key):
                del self._arrived[transfer]
                self.released(arrival.slot)

    def _is_passed(self, transfer: Transfer, key: RequestKey) -> bool:
        source, number = transfer
        return number <= self._passed.get(key, {}).get(source, 0)
