"""What the relay has granted, in a file beside the arena: its next life knows every extent without asking anybody.

A 64-byte head, then a record for every place in the arena's table: the grant's epoch, offset, size and kind, 8 bytes
each, the epoch last to be written and first to be zeroed. A record that is cut off by the process's death is none.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Self

from omni_common.arena.extents import Extent
from omni_common.arena.layout import MAX_EXTENTS
from omni_relay.core.holders import Kind

LEDGER = "grants"
"""The file's name in the pod's shared folder."""

_MAGIC = int.from_bytes(b"OMNIGRT1", "little")
_HEAD = 8  # words
_RECORD = 4
_SIZE = 8 * (_HEAD + _RECORD * MAX_EXTENTS)
_KINDS = {1: Kind.STAGE, 2: Kind.PEER}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Ledger:
    """The relay's alone; one thread at a time."""

    def __init__(self, file: int) -> None:
        """Owns `file`."""
        try:
            self._memory = mmap.mmap(file, _SIZE, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(file)
        self._words = memoryview(self._memory).cast("Q")

    @classmethod
    def create(cls, folder: Path, arena: int) -> Self:
        """An empty one for the arena of that epoch, in place of any other. Raises OSError when there is no room."""
        draft = folder / f"{LEDGER}.draft"
        draft.unlink(missing_ok=True)
        file = os.open(draft, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(file, 0, _SIZE)
        os.pwrite(file, _MAGIC.to_bytes(8, "little") + arena.to_bytes(8, "little"), 0)
        draft.rename(folder / LEDGER)
        return cls(file)

    @classmethod
    def adopt(cls, folder: Path, arena: int) -> Self | None:
        """The one that a former life kept for that arena."""
        try:
            file = os.open(folder / LEDGER, _FLAGS)
        except OSError:
            return None
        if os.fstat(file).st_size != _SIZE:
            os.close(file)
            return None
        ledger = cls(file)
        return ledger if ledger._words[:2].tolist() == [_MAGIC, arena] else None

    def note(self, extent: Extent, kind: Kind) -> None:
        at = _HEAD + _RECORD * extent.index
        self._words[at + 1], self._words[at + 2], self._words[at + 3] = extent.offset, extent.size, _NUMBERS[kind]
        self._words[at] = extent.epoch

    def strike(self, index: int) -> None:
        self._words[_HEAD + _RECORD * index] = 0

    def grants(self) -> list[tuple[Extent, Kind]]:
        """Raises ValueError for what was never noted so."""
        found = []
        for index in range(MAX_EXTENTS):
            at = _HEAD + _RECORD * index
            epoch, offset, size, kind = self._words[at : at + _RECORD].tolist()
            if epoch and kind not in _KINDS:
                raise ValueError(f"the ledger knows no kind {kind}")
            if epoch:
                found.append((Extent(index, epoch, offset, size), _KINDS[kind]))
        return found
