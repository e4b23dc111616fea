"""The consumer's side of the arena: lends read-only views of slots, and holds the slots while any view lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

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

    def view(self, ref: DataRef, released: Released) -> Tensor:
        """The tensor that `ref` names; `released` is called when the last view of it is gone, unless this raises."""

        def check(data: memoryview) -> None:
            if ref.checksum and checksum(data) != ref.checksum:
                raise LeaseLost("the bytes in the arena are not those that were sent")
            tensor_from(ref, data)

        return tensor_from(ref, self._lend(ref.arena, ref.length, check, released))

    def lend(self, slot: ArenaSlot, length: int, released: Released) -> memoryview:
        """The bytes of a slot, read-only, for who needs no tensor; otherwise as `view`."""
        return self._lend(slot, length, lambda data: None, released)

    def close(self) -> None:
        """Ends its use. What it lent stays; the holds end with the last of it."""
        del self._arena, self._holds

    def _lend(self, ref: ArenaSlot, length: int, check: Callable[[memoryview], None], released: Released) -> memoryview:
        slot = ArenaSlot()
        slot.CopyFrom(ref)  # of its own: a part of a reference would keep all of its message in memory
        self._check_place(slot, length)
        # First the hold, then the check: see `holds`.
        if (entry := self._holds.hold_slot(slot.offset)) is None:
            return self._copy(slot, length, check, released)
        with ExitStack() as undo:
            undo.callback(self._holds.drop, entry)
            check(self._leased(slot, length))
            data = self._arena.readonly.window(slot.offset, length, _return, self._holds, entry, released, slot)
            undo.pop_all()
        return data.toreadonly()

    def _copy(
        self, slot: ArenaSlot, length: int, check: Callable[[memoryview], None], released: Released
    ) -> memoryview:
        data = memoryview(bytes(self._leased(slot, length)))
        self._leased(slot, length)  # still, so nothing was written there while it was copied
        check(data)
        names.TENSOR_COPIES.labels("holds_full").inc()
        released(slot)
        return data

    def _check_place(self, slot: ArenaSlot, length: int) -> None:
        if slot.extent >= MAX_EXTENTS or slot.offset < EXTENTS + SlotHead.SIZE or slot.offset % ALIGNMENT:
            raise LeaseLost("the reference names no slot of the arena")
        # A look at the size each time: reading beyond the end of a file that shrank would be SIGBUS.
        if slot.offset + length > self._arena.size or not self._arena.intact:
            raise LeaseLost("the reference reaches beyond the arena")

    def _leased(self, slot: ArenaSlot, length: int) -> memoryview:
        """Raises LeaseLost unless the slot is leased just now, under that generation, to `length` bytes."""
        arena, offset = self._arena, slot.offset
        if not slot.epoch or arena.extent_epoch(slot.extent) != slot.epoch:
            raise LeaseLost("its producer is gone")
        head = SlotHead.parse(arena.readonly.view[offset - SlotHead.SIZE : offset])
        if head is None or (head.epoch, head.generation, head.length) != (slot.epoch, slot.generation, length):
            raise LeaseLost("its slot is no longer leased to it")
        if head.expires <= self._clock():
            raise LeaseLost("its lease has expired")
        return arena.readonly.view[offset : offset + length]


def _return(holds: HoldTable, entry: int, released: Released, slot: ArenaSlot) -> None:
    holds.drop(entry)
    released(slot)
