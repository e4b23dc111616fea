"""Other pods without a network: what a relay pushes comes back to its own stages, through space that it grants.

It is small, but real: it allocates in granted extents, copies bytes in the arena, writes heads and delivers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from omni_common.arena.extents import Extent
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.arena.memory import Arena
from omni_common.deadline import Deadline
from omni_common.errors import Cancelled, OmniError, Overloaded, StageUnavailable
from omni_relay.ports import ArrivedTensor, Consumers, PushOrder, PushResult, Space, Transfer

PEER = "loopback"


@dataclass(slots=True)
class _Push:
    order: PushOrder
    ended: Callable[[PushResult], None]


@dataclass(slots=True)
class Loopback:
    """A ports.Pushers and a ports.Grantee. Every push gets an extent of its own. While `paused`, pushes stay under
    way: their bytes have been neither read nor refused."""

    arena: Arena
    space: Space
    consumers: Consumers
    address: str = "loopback:7080"
    paused: bool = False
    lease: float = 1e9
    sent: list[bytes] = field(default_factory=list)
    freed_slots: list[tuple[int, int]] = field(default_factory=list)
    under_way: dict[Transfer, _Push] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _generation: int = 0
    _moving: list[_Push] = field(default_factory=list)

    # What a relay needs of it

    def start(self) -> None:
        self.space.join(PEER, self)

    def tick(self, now: float) -> None: ...

    def close(self, deadline: Deadline) -> None:
        self.cancel_all()
        self.space.leave(PEER)

    # ports.Pushers

    def submit(self, order: PushOrder, ended: Callable[[PushResult], None]) -> None:
        if not self.paused and not self.consumers.knows(order.consumer):
            ended(PushResult(StageUnavailable(order.consumer, "is not there"), "tcp"))
            return
        with self._lock:
            self.under_way[order.transfer] = _Push(order, ended)
            if not self.paused:
                self._next()

    def cancel(self, transfer: Transfer) -> None:
        """Late, where it is paused: as a network that still reads."""
        with self._lock:
            if not self.paused:
                self._end(transfer, Cancelled())

    def go_on(self) -> None:
        with self._lock:
            self.paused = False
            self._next()

    def cancel_all(self) -> None:
        """The network has understood."""
        with self._lock:
            for transfer in tuple(self.under_way):
                self._end(transfer, Cancelled())

    # ports.Grantee

    def granted(self, extent: Extent) -> None:
        with self._lock:
            push = self._moving.pop()
            if push.order.transfer in self.under_way:
                self._end(push.order.transfer, self._move(push.order, extent))
            self._next()

    def refused(self, size: int) -> None:
        with self._lock:
            self._end(self._moving.pop().order.transfer, Overloaded("There is no room in the other pod."))
            self._next()

    def freed(self, extent: int, offset: int) -> None:
        self.freed_slots.append((extent, offset))
        self.space.give_back(PEER, extent)

    def _next(self) -> None:
        if self.under_way and not self._moving:
            push = next(iter(self.under_way.values()))
            self._moving.append(push)
            self.space.want(PEER, slot_size(len(push.order.data)))

    def _move(self, order: PushOrder, extent: Extent) -> OmniError | None:
        self._generation += 1
        offset, length = extent.offset + SlotHead.SIZE, len(order.data)
        head = SlotHead(extent.epoch, self._generation, length, self.lease)
        self.arena.view[offset : offset + length] = order.data
        self.arena.view[extent.offset : offset] = head.pack()
        self.sent.append(bytes(order.data))
        arrived = ArrivedTensor(order.transfer, extent, offset, self._generation, length, order.key)
        if self.consumers.deliver(order.consumer, arrived):
            return None
        self.space.give_back(PEER, extent.index)
        return StageUnavailable(order.consumer, "is gone")

    def _end(self, transfer: Transfer, error: OmniError | None) -> None:
        push = self.under_way.pop(transfer, None)
        if push is not None:
            push.ended(PushResult(error, "tcp"))
