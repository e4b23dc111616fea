"""A pod's arena without a relay, which within a pod has no part in the traffic: one extent is all of it."""

from __future__ import annotations

from pathlib import Path

from tests.load.marks import mark

from omni_common.arena import Arena, ArenaReader, ArenaWriter, Extent, HoldTable, HoldTables
from omni_common.arena.layout import EXTENTS
from omni_common.relay.slots import Slots
from omni_common.tensor import DType, Tensor


def make_arena(folder: Path, size: int) -> int:
    """Makes it and grants the extent, as a relay would; the epoch of both."""
    arena = Arena.create(folder, size)
    arena.set_extent_epoch(0, arena.epoch)
    return arena.epoch


def open_slots(folder: Path, epoch: int) -> Slots:
    """The producer's side."""
    arena = Arena.open(folder, epoch)
    writer = ArenaWriter(arena, HoldTable.create(folder, "producer"), HoldTables(folder))
    writer.grant(Extent(0, epoch, EXTENTS, arena.size - EXTENTS))
    return Slots(arena, writer)


def open_reader(folder: Path, epoch: int) -> ArenaReader:
    """The consumer's side."""
    return ArenaReader(Arena.open(folder, epoch), HoldTable.create(folder, "consumer"))


def place(slots: Slots, size: int) -> Tensor:
    """A tensor in the arena, as a model makes it there, with its mark."""
    data = slots.allocate(size)
    if data is None:
        raise MemoryError("the arena has no room for what is held and one more")
    mark(data)
    return Tensor(DType.UINT8, (size,), data)
