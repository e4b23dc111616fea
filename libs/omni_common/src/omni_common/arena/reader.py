"""The consumer's side of the arena: lends read-only views of slots, and holds the slots while any view lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena.holds import HoldTable
from omni_common.arena.layout import ALIGNMENT, EXTENTS, MAX_EXTENTS, SlotHead
from omni_common.arena.memory import Arena
from omni_common.clock import Clock
from omni_common.data_ref import checksum, tensor_from
from omni_common.errors import LeaseLost
from omni_common.telemetry import names
from omni_common.tensor import Tensor

Released = Callable[[ArenaSlot], None]
"""Told that a slot's last view is gone. Called once per view, from whatever thread dropped it and possibly from
inside the garbage collector: it must not block, take a lock or raise (`deque.append`, `loop.call_soon_threadsafe`)."""

LOOK = 0.25
"""Seconds between two looks at the file's size. Reading beyond the end of a file that was cut short is SIGBUS, whenever
that happened: a look for each view would not save the views that live. The relay claims every page before anybody maps
the file, and nobody of the design ever cuts it: this is for accidents, and not worth a system call for each tensor."""

Made = TypeVar("Made")


class ArenaReader:
    """Views of the tensors that others put into the pod's arena.

    Nothing is copied, unless the table of holds is full. A view's bytes are checked before it is lent and stay as they
    are for as long as the view, or any array made from it, lives, whatever becomes of its request and its producer.
    The pages are mapped read-only. numpy honours that; torch does not know read-only tensors, so writing in place to
    one made from a view ends the process with SIGSEGV: clone first.

    Every reference that does not hold (no such extent, other epoch or generation, out of bounds, expired, other bytes
    than the checksum says) raises LeaseLost.

    Thread-safe. Views may go to any thread, not through a fork.
    """

    def __init__(self, arena: Arena, holds: HoldTable, clock: Clock = time.monotonic) -> None:
        self._arena = arena
        self._holds = holds
        self._clock = clock
        self._next_look = 0.0

    def view(self, ref: DataRef, released: Released) -> Tensor:
        """The tensor that `ref` names; `released` is called when the last view of it is gone, unless this raises."""

        return self._lend(ref.arena, ref.length, lambda data: _tensor(ref, data), released)

    def lend(self, slot: ArenaSlot, length: int, released: Released) -> memoryview:
        """The bytes of a slot, read-only, for who needs no tensor; otherwise as `view`."""
        return self._lend(slot, length, lambda data: data, released)

    def close(self) -> None:
        """Ends its use. What it lent stays; the holds end with the last of it."""
        del self._arena, self._holds

    def _lend(self, ref: ArenaSlot, length: int, make: Callable[[memoryview], Made], released: Released) -> Made:
        """What `make` makes of the slot's bytes; where it raises, nothing is lent."""
        slot = ArenaSlot()
        slot.CopyFrom(ref)  # of its own: a part of a reference would keep all of its message in memory
        self._check_place(slot, length)
        # First the hold, then the check: see `holds`.
        if (entry := self._holds.hold_slot(slot.offset)) is None:
            return self._copy(slot, length, make, released)
        try:
            self._check_lease(slot, length)
            window = self._arena.readonly.window()
            made = make(window.part(slot.offset, length).toreadonly())
        except BaseException:
            self._holds.drop(entry)
            raise
        window.then(_return, self._holds, entry, released, slot)
        return made

    def _copy(self, slot: ArenaSlot, length: int, make: Callable[[memoryview], Made], released: Released) -> Made:
        self._check_lease(slot, length)
        data = bytes(self._arena.readonly.view[slot.offset : slot.offset + length])
        self._check_lease(slot, length)  # still, so nothing was written there while it was copied
        made = make(memoryview(data))
        names.TENSOR_COPIES.labels("holds_full").inc()
        released(slot)
        return made

    def _check_place(self, slot: ArenaSlot, length: int) -> None:
        offset = slot.offset
        if slot.extent >= MAX_EXTENTS or offset < EXTENTS + SlotHead.SIZE or offset % ALIGNMENT:
            raise LeaseLost("the reference names no slot of the arena")
        if offset + length > self._arena.size:
            raise LeaseLost("the reference reaches beyond the arena")

    def _check_lease(self, slot: ArenaSlot, length: int) -> None:
        """Raises LeaseLost unless the slot is leased just now, under that generation, to `length` bytes."""
        now, epoch = self._clock(), slot.epoch
        if now >= self._next_look:
            self._look(now)
        if not epoch or self._arena.extent_epoch(slot.extent) != epoch:
            raise LeaseLost("its producer is gone")
        expires = SlotHead.expiry(self._arena.readonly.view, slot.offset, epoch, slot.generation, length)
        if expires is None:
            raise LeaseLost("its slot is no longer leased to it")
        if expires <= now:
            raise LeaseLost("its lease has expired")

    def _look(self, now: float) -> None:
        if not self._arena.intact:
            raise LeaseLost("the arena was cut short")
        self._next_look = now + LOOK


def _tensor(ref: DataRef, data: memoryview) -> Tensor:
    if (sent := ref.checksum) and checksum(data) != sent:
        raise LeaseLost("the bytes in the arena are not those that were sent")
    return tensor_from(ref, data)


def _return(holds: HoldTable, entry: int, released: Released, slot: ArenaSlot) -> None:
    holds.drop(entry)
    released(slot)
