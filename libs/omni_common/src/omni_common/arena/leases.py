"""What a writer knows of its extents and of the slots in them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Self

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena.extents import Extent
from omni_common.arena.holds import HoldTable
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.arena.space import FreeSpace
from omni_common.request import RequestKey


@dataclass(slots=True, weakref_slot=True, eq=False)
class Granted:
    """An extent, held for as long as this is known to anybody: to its writer, or to a view of a slot in it that may
    still be written to and has outlived the writer."""

    extent: Extent
    space: FreeSpace = field(default_factory=FreeSpace)
    generation: int = 0
    leases: int = 0
    revoked: bool = False
    _leave: weakref.finalize[[int], Granted] | None = None

    @classmethod
    def hold(cls, extent: Extent, holds: HoldTable) -> Self | None:
        """None: the table of holds is full."""
        entry = holds.hold_extent(extent.offset)
        if entry is None:
            return None
        granted = cls(extent)
        granted.space.give(extent.offset, extent.size)
        granted._leave = weakref.finalize(granted, holds.drop, entry)
        granted._leave.atexit = False
        return granted

    def leave(self) -> None:
        """Somebody else may have the extent."""
        if self._leave is not None:
            self._leave()

    def leave_if_done(self) -> None:
        if self.revoked and not self.leases:
            self.leave()


@dataclass(slots=True, eq=False)
class Lease:
    """A slot that is not free."""

    granted: Granted
    slot: ArenaSlot
    length: int
    key: RequestKey | None
    expires: float
    uses: int = 0
    """References that were sent and not released."""
    mine: bool = False
    """The producer's own views live."""
    lost: bool = False
    """Somebody who will never say that it stopped looking may look at it."""
    wiped: float | None = None
    """Since when no new view can be made."""
    start: int = field(init=False)
    """Where its head begins."""
    offset: int = field(init=False)
    """Where its bytes begin."""
    size: int = field(init=False)
    """Bytes that it takes, its head included."""

    def __post_init__(self) -> None:
        self.offset = self.slot.offset
        self.start = self.offset - SlotHead.SIZE
        self.size = slot_size(self.length)

    @property
    def lendable(self) -> bool:
        return self.wiped is None and not self.granted.revoked
