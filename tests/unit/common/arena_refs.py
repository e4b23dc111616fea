"""An arena as its relay has it, producers and consumers in it, and references as a sender makes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import shake_128
from itertools import count
from pathlib import Path

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena import Arena, ArenaReader, ArenaWriter, Extent, HoldTable, HoldTables
from omni_common.arena.layout import EXTENTS
from omni_common.clock import Clock
from omni_common.data_ref import checksum, describe
from omni_common.request import RequestKey
from omni_common.tensor import DType, Tensor

FOREVER = float("inf")
KEY = RequestKey("r")
EXTENT = 64 * 1024


class Pod:
    """The relay's side of an arena, in a folder of its own: four extents of 64 KiB, granted in order."""

    def __init__(self, folder: Path, clock: Clock = time.monotonic) -> None:
        self.folder = folder
        self.clock = clock
        self.arena = Arena.create(folder, EXTENTS + 4 * EXTENT)
        self.tables = HoldTables(folder)
        self._epochs = count(0xA11CE)

    def grant(self, index: int = 0, size: int = EXTENT) -> Extent:
        extent = Extent(index, next(self._epochs), EXTENTS + index * EXTENT, size)
        self.arena.set_extent_epoch(index, extent.epoch)
        return extent

    def revoke(self, extent: Extent) -> None:
        self.arena.set_extent_epoch(extent.index, 0)

    def writer(self, *extents: Extent) -> ArenaWriter:
        """A producer in a process of its own, as far as the arena can tell; it has those extents, or one of them."""
        writer = ArenaWriter(self._open(), self.table("producer"), HoldTables(self.folder), self.clock)
        for extent in extents or (self.grant(),):
            assert writer.grant(extent)
        return writer

    def reader(self, table: HoldTable | None = None) -> ArenaReader:
        return ArenaReader(self._open(), table or self.table("consumer"), self.clock)

    def table(self, name: str) -> HoldTable:
        return HoldTable.create(self.folder, name)

    def _open(self) -> Arena:
        return Arena.open(self.folder, self.arena.epoch)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes without a pattern, the same ones every time."""
    return shake_128(seed.to_bytes(8)).digest(size)


def octets(data: bytes | memoryview) -> Tensor:
    return Tensor(DType.UINT8, (len(data),), memoryview(data))


def ref_to(tensor: Tensor, slot: ArenaSlot, *, checked: bool = True) -> DataRef:
    ref = describe(tensor)
    ref.arena.CopyFrom(slot)
    ref.checksum = checksum(tensor.data) if checked else 0
    return ref


def put(
    writer: ArenaWriter, data: bytes, key: RequestKey | None = KEY, expires: float = FOREVER, *, checked: bool = True
) -> DataRef:
    tensor = octets(data)
    slot = writer.put(tensor, key, expires)
    assert slot is not None, "the extents have no room for what the test puts into them"
    return ref_to(tensor, slot, checked=checked)


def never() -> Callable[[ArenaSlot], None]:
    """A `released` for references that must be refused."""

    def released(slot: ArenaSlot) -> None:
        raise AssertionError(f"slot {slot.generation} was released")

    return released
