"""What lies where in the arena's file. Whoever maps it agrees here and nowhere else.

    [0, 64)        the head: whose arena it is, and how large
    [64, 8192)     the table: for every extent the epoch of the grant that stands, 0 where none does
    [8192, size)   extents; in an extent slots, each a 64-byte head followed by the bytes of one tensor

`ArenaSlot.offset` is where a slot's bytes begin, always a multiple of 64. Everything is little-endian; words of 8 bytes
are aligned, so that each is written and read whole.

A slot is *leased* from the moment its head is written until the head is wiped or its extent's word in the table is.
Generations are never used again in a grant, epochs never at all, so a reference to a slot that was returned, to a
producer that died or to a place that never was a slot finds a head or a word that does not match.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

# A cache line, and the widest vector register: no tensor straddles one that it need not.
ALIGNMENT = 64

# Grants that can stand at a time: of at least an extent's least size they fill any arena, and head and table together
# are two pages.
MAX_EXTENTS = 1016


@dataclass(frozen=True, slots=True)
class ArenaHead:
    """The first bytes of the arena. `size` is that of the whole file."""

    epoch: int
    size: int

    SIZE: ClassVar[int] = ALIGNMENT
    _FORMAT: ClassVar[Struct] = Struct("<8sQQ40x")
    _MAGIC: ClassVar[bytes] = b"OMNIARN2"

    def pack(self) -> bytes:
        return self._FORMAT.pack(self._MAGIC, self.epoch, self.size)

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Self | None:
        magic, epoch, size = cls._FORMAT.unpack(data)
        return cls(epoch, size) if magic == cls._MAGIC else None


# Where the extents begin.
EXTENTS = ArenaHead.SIZE + 8 * MAX_EXTENTS


@dataclass(frozen=True, slots=True)
class SlotHead:
    """The 64 bytes before a tensor's bytes. `epoch` is that of the extent's grant, `expires` the end of the lease in
    seconds of CLOCK_MONOTONIC, which all processes of a kernel share."""

    epoch: int
    generation: int
    length: int
    expires: float

    SIZE: ClassVar[int] = ALIGNMENT
    WIPED: ClassVar[bytes] = bytes(ALIGNMENT)
    _FORMAT: ClassVar[Struct] = Struct("<8sQQQd24x")
    _MAGIC: ClassVar[bytes] = b"OMNISLT1"

    def pack(self) -> bytes:
        return self.packed(self.epoch, self.generation, self.length, self.expires)

    @classmethod
    def packed(cls, epoch: int, generation: int, length: int, expires: float) -> bytes:
        """Such a head's bytes, without making one of this class: every tensor that is sent needs them."""
        return cls._FORMAT.pack(cls._MAGIC, epoch, generation, length, expires)

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Self | None:
        magic, *fields = cls._FORMAT.unpack(data)
        return cls(*fields) if magic == cls._MAGIC else None

    @classmethod
    def expiry(cls, memory: memoryview, offset: int, epoch: int, generation: int, length: int) -> float | None:
        """Until when the slot whose bytes begin there is leased under those numbers; None where it is not. Every view
        asks, so the head is read in one go and compared as it is, without making one of this class."""
        *numbers, expires = cls._FORMAT.unpack_from(memory, offset - cls.SIZE)
        return expires if numbers == [cls._MAGIC, epoch, generation, length] else None


def slot_size(length: int) -> int:
    """What a tensor of that many bytes takes in an extent, its head included."""
    return SlotHead.SIZE + -(-length // ALIGNMENT) * ALIGNMENT
