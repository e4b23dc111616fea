"""This process's slots in its pod's arena, for all of its threads."""

from __future__ import annotations

import threading

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena import Arena, ArenaWriter, Extent
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.tensor import Tensor

FOREVER = float("inf")


class NoRoom(Exception):
    """There is no room in the arena just now for a slot of `size` bytes, head included."""

    def __init__(self, size: int) -> None:
        super().__init__(f"no room for a slot of {size} bytes")
        self.size = size


class Slots:
    """The arena's writer under a lock: schedulers make tensors in place in threads of their own, the event loop does
    all the rest. A lock rather than slots set aside for the schedulers, since nobody knows their sizes before; it is
    held for microseconds, and while a tensor is copied in, which holds the interpreter's lock as well. Finalizers
    never take it: the writer notes views that died without it.

    A slot is leased for as long as it has a use: a reference to it that was sent, or a push that reads it. Each use
    is ended once: by `release` if its user has said that it is over, by `lose` if nobody will say so.
    """

    def __init__(self, arena: Arena, writer: ArenaWriter) -> None:
        self._lock = threading.Lock()
        self._arena = arena
        self._writer = writer
        self._too_large = FOREVER

    def renew(self, arena: Arena, writer: ArenaWriter) -> None:
        """The pod has another arena: what was in the old one is lost."""
        with self._lock:
            for extent in self._writer.extents:
                self._writer.revoke(extent.index)
            self._arena, self._writer = arena, writer
            self._too_large = FOREVER

    # What is sent.

    def reserve(self, length: int, expires: float) -> tuple[ArenaSlot, memoryview]:
        """A slot with one use, and its bytes to be written before anyone is told of it. Raises NoRoom."""
        with self._lock:
            reserved = self._writer.reserve(length, None, expires)
        if reserved is None:
            raise NoRoom(slot_size(length))
        return reserved

    def made_in_place(self, tensor: Tensor) -> ArenaSlot | None:
        """One more use of the slot in which the tensor was made, if it was made in one."""
        with self._lock:
            return self._writer.slot_of(tensor)

    def data(self, slot: ArenaSlot, length: int) -> memoryview | None:
        """The bytes of a slot that is still leased, else None."""
        with self._lock:
            view = self._arena.view
            if all(extent.epoch != slot.epoch for extent in self._writer.extents):
                return None
            head = SlotHead.parse(view[slot.offset - SlotHead.SIZE : slot.offset])
            leased = head is not None and (head.generation, head.length) == (slot.generation, length)
            return view[slot.offset : slot.offset + length] if leased else None

    def release(self, slot: ArenaSlot) -> bool:
        """Ends one use of it. False when it is not leased (any more)."""
        with self._lock:
            return self._writer.release(slot)

    def lose(self, slot: ArenaSlot) -> bool:
        """Ends one use of it by somebody who may look at it still: its bytes come back when nobody does."""
        with self._lock:
            return self._writer.lose(slot)

    # What is made in place.

    def allocate(self, length: int) -> memoryview | None:
        """Memory to make a tensor in, from any thread; free again when its last view and its last use are gone. None:
        no room just now."""
        with self._lock:
            return self._writer.allocate(length, None, FOREVER)

    # Extents.

    @property
    def extents(self) -> tuple[Extent, ...]:
        with self._lock:
            return self._writer.extents

    def too_large(self, length: int) -> bool:
        """Whether the relay has said that there can never be room for so much."""
        return slot_size(length) >= self._too_large

    def refuse(self, size: int) -> None:
        """There can never be room for a slot of so many bytes."""
        self._too_large = min(self._too_large, size)

    def grant(self, extent: Extent) -> bool:
        with self._lock:
            return self._writer.grant(extent)

    def revoke(self, index: int) -> None:
        with self._lock:
            self._writer.revoke(index)

    def take_back(self, *, last: bool = False) -> Extent | None:
        """An idle extent, no longer ours; the only one if `last`."""
        with self._lock:
            return self._writer.take_back(last=last)

    def reclaim(self, now: float) -> int:
        with self._lock:
            return self._writer.reclaim(now)

    # What there is.

    @property
    def held(self) -> int:
        with self._lock:
            return self._writer.held

    @property
    def in_use(self) -> int:
        with self._lock:
            return self._writer.in_use

    @property
    def leases(self) -> int:
        with self._lock:
            return self._writer.leases
