"""What lies where in a segment, and how its file is named. Writer and reader agree here and nowhere else.

A segment is one file `<name>-<epoch>.arena`: a 64-byte head, then slots. A slot is a 64-byte head followed by the
bytes of one tensor; `ArenaSlot.offset` is where the bytes begin, always a multiple of 64. Everything is little-endian.

A slot is *leased* from the moment its head is written until the head is wiped. Its generation is never used again in
the segment, the epoch is never used again for any segment, so a reference to a slot that was returned, to a producer
that died or to a place that never was a slot finds a head that does not match.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from struct import Struct
from typing import ClassVar, Self

# A cache line, and the widest vector register: no tensor straddles one that it need not.
ALIGNMENT = 64

_SEGMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-(?P<epoch>[0-9a-f]{16})\.arena")


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """The first bytes of a segment. `size` is that of the whole file."""

    epoch: int
    size: int

    SIZE: ClassVar[int] = ALIGNMENT
    _FORMAT: ClassVar[Struct] = Struct("<8sQQ40x")
    _MAGIC: ClassVar[bytes] = b"OMNISEG1"

    def pack(self) -> bytes:
        return self._FORMAT.pack(self._MAGIC, *astuple(self))

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Self | None:
        magic, epoch, size = cls._FORMAT.unpack(data)
        return cls(epoch, size) if magic == cls._MAGIC else None


@dataclass(frozen=True, slots=True)
class SlotHead:
    """The 64 bytes before a tensor's bytes. `expires` is the end of the lease in seconds of CLOCK_MONOTONIC, which
    all processes of a kernel share."""

    epoch: int
    generation: int
    length: int
    expires: float

    SIZE: ClassVar[int] = ALIGNMENT
    WIPED: ClassVar[bytes] = bytes(ALIGNMENT)
    _FORMAT: ClassVar[Struct] = Struct("<8sQQQd24x")
    _MAGIC: ClassVar[bytes] = b"OMNISLT1"

    def pack(self) -> bytes:
        return self._FORMAT.pack(self._MAGIC, *astuple(self))

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Self | None:
        magic, *fields = cls._FORMAT.unpack(data)
        return cls(*fields) if magic == cls._MAGIC else None


def slot_size(length: int) -> int:
    """What a tensor of that many bytes takes in a segment, its head included."""
    return SlotHead.SIZE + -(-length // ALIGNMENT) * ALIGNMENT


def segment_name(name: str, epoch: int) -> str:
    """Raises ValueError for a name that could leave the folder or could not be told from its epoch."""
    file = f"{name}-{epoch:016x}.arena"
    if _SEGMENT_NAME.fullmatch(file) is None:
        raise ValueError(f"'{name}' cannot name an arena segment; letters, digits, dots, dashes and underscores can")
    return file


def epoch_of(file: str) -> int | None:
    """The epoch in a segment's file name; None if no segment is named so."""
    match = _SEGMENT_NAME.fullmatch(file)
    return int(match["epoch"], 16) if match else None
