"""Holds: which bytes of the arena each process looks at just now, so that nobody else reuses them meanwhile.

A process says so in a table of its own, a small file `holds/<name>-<random>` that it keeps locked while it lives:
8-byte words, the first of them the highest entry in use, every other an entry: 0, or what it holds. To look at a slot
it writes the hold *first* and checks that the slot is still leased *then*. Whoever wants bytes back without their
consumers' word goes the other way: wipe first, wait SETTLE, look at the tables then, and reuse only what is in none
of them. So either the wipe is seen by the check, or the hold is seen by the look.

Whoever dies leaves a table that nobody has locked, and holds nothing any more. A forked child has no part in its
parent's table: it lets go of the lock at once, and what it drops stays held, since it is the parent that holds it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
import time
import weakref
from array import array
from bisect import bisect_left
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from omni_common.arena.layout import SlotHead

# Seconds between a wipe and the look at the tables: far beyond the time that a processor keeps a store to itself, so
# that a hold written before a check that saw no wipe is seen by then.
SETTLE = 0.25

ENTRIES = 8191
"""What a table holds at a time; it fills 64 KiB with its first word."""

_SIZE = 8 * (1 + ENTRIES)
# An entry is where a slot's head begins, a multiple of 64, or where an extent does and this bit.
_WRITING = 1
_DRAFT = ".draft"
# How old a draft is whose maker must have died: making one takes microseconds.
_DRAFT_SECONDS = 10.0


class HoldTable:
    """What this process holds. It ends, and its file goes, when it and every view that it holds for are gone; at the
    process's death the relay removes it.

    `hold_*` may be called by any thread; `drop` also by finalizers, inside the garbage collector: it takes no lock.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Owns `lock`, a descriptor that is locked."""
        self.path = path
        self._file: int | None = lock
        # Another opening: the lock lives as long as any descriptor of its own, which mmap would copy.
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._words = memoryview(mmap.mmap(file, _SIZE, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)).cast("Q")
        finally:
            os.close(file)
        self._free: deque[int] = deque()
        self._growing = threading.Lock()
        self._end = weakref.finalize(self, _end, path, lock)
        self._end.atexit = False
        _forget_in_forked_children(self)

    @classmethod
    def create(cls, folder: Path, name: str) -> Self:
        """A table in the pod's shared folder; `name` is for people who look. Raises OSError when there is no room."""
        path = _folder(folder) / f"{name}-{secrets.token_hex(8)}"
        draft = path.with_name(path.name + _DRAFT)
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(file, 0o660)  # whatever the umask: stages of other users share the pod's group
            os.posix_fallocate(file, 0, _SIZE)
            draft.rename(path)  # it gets its name last: who sees the name sees the lock
        except OSError:
            os.close(file)
            draft.unlink(missing_ok=True)
            raise
        return cls(path, file)

    def hold_slot(self, offset: int) -> int | None:
        """Holds the slot whose bytes begin there: the entry, for `drop`. None when the table is full."""
        return self._hold(offset - SlotHead.SIZE)

    def hold_extent(self, offset: int) -> int | None:
        """Says that this process writes in the extent that begins there."""
        return self._hold(offset | _WRITING)

    def drop(self, entry: int) -> None:
        if self._file is not None:
            self._words[entry] = 0
            self._free.append(entry)

    @property
    def held(self) -> int:
        """How many entries are in use."""
        return self._words[0] - len(self._free)

    def _hold(self, word: int) -> int | None:
        if self._file is None:
            raise RuntimeError("what was mapped before a fork cannot be used after it")
        try:
            entry = self._free.pop()
        except IndexError:
            with self._growing:
                entry = self._words[0] + 1
                if entry > ENTRIES:
                    return None
                self._words[0] = entry
        self._words[entry] = word
        return entry

    def disown(self) -> None:
        """What a forked child does with its parent's table: it changes nothing in it any more, and lets go of the lock,
        which the parent keeps and which would outlive the parent otherwise."""
        if self._file is not None:
            self._end.detach()
            os.close(self._file)
            self._file = None


@dataclass(frozen=True, slots=True)
class Held:
    """What all living processes held at one moment."""

    slots: list[int]
    extents: list[int]

    def views(self, start: int, end: int) -> bool:
        """Whether any process looks at a slot between the two."""
        return _between(self.slots, start, end)

    def anything(self, start: int, end: int) -> bool:
        """Whether any process looks at a slot between the two, or may write there."""
        return self.views(start, end) or _between(self.extents, start, end)


class HoldTables:
    """The tables of all processes of the pod, this one's included. Those of the dead count for nothing.

    Not thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = _folder(folder)
        self._files: dict[str, int] = {}
        self._dead: set[str] = set()
        self._close = weakref.finalize(self, _close_all, self._files)
        self._close.atexit = False

    def look(self) -> Held:
        """Counts only for what was wiped at least SETTLE ago."""
        self._find()
        self._forget_dead()
        words = [word for file in self._files.values() for word in _words_of(file)]
        slots = sorted(word for word in words if not word & _WRITING)
        return Held(slots, sorted(word & ~_WRITING for word in words if word & _WRITING))

    def held(self, start: int, end: int) -> bool:
        """Whether any living process looks at a slot between the two offsets, or may write there."""
        return self.look().anything(start, end)

    def remove_dead(self) -> int:
        """Removes the files of processes that are dead; says how many. The relay's work."""
        return sum(_remove_if_dead(path) for path in self._folder.iterdir())

    def close(self) -> None:
        self._close()

    def _find(self) -> None:
        names = {name for name in os.listdir(self._folder) if not name.endswith(_DRAFT)}
        self._dead &= names
        for name in self._files.keys() - names:
            os.close(self._files.pop(name))
        for name in names - self._files.keys() - self._dead:
            with suppress(OSError):  # removed meanwhile, or nothing of ours
                self._files[name] = os.open(self._folder / name, _READING)

    def _forget_dead(self) -> None:
        # Names are never used again.
        for name in [name for name, file in self._files.items() if _dead(file)]:
            os.close(self._files.pop(name))
            self._dead.add(name)


def _words_of(file: int) -> list[int]:
    # Not mapped: a table that is cut short must not end its readers.
    data = os.pread(file, _SIZE, 0)
    words = array("Q", data[: len(data) // 8 * 8])
    return [word for word in words[1 : 1 + words[0]] if word] if words else []


_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_tables: weakref.WeakSet[HoldTable] = weakref.WeakSet()


def _forget_in_forked_children(table: HoldTable) -> None:
    _watch_forks()
    _tables.add(table)


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_disown_all)


def _disown_all() -> None:
    for table in tuple(_tables):
        table.disown()


def _folder(folder: Path) -> Path:
    holds = folder / "holds"
    with suppress(FileExistsError):
        holds.mkdir()
        holds.chmod(holds.stat().st_mode | 0o070)  # whatever the umask: processes of other users share the pod's group
    return holds


def _between(offsets: list[int], start: int, end: int) -> bool:
    place = bisect_left(offsets, start)
    return place < len(offsets) and offsets[place] < end


def _dead(file: int) -> bool:
    """Whether the owner of a table, which keeps it locked, is no more."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _remove_if_dead(path: Path) -> bool:
    with suppress(OSError):  # gone meanwhile, or nothing of ours
        file = os.open(path, _READING)
        try:
            if _is_new_draft(path, file) or not _dead(file):
                return False
            path.unlink()
            return True
        finally:
            os.close(file)
    return False


def _is_new_draft(path: Path, file: int) -> bool:
    """Between its making and its locking nobody has the lock of a draft."""
    return path.name.endswith(_DRAFT) and time.time() - os.fstat(file).st_mtime < _DRAFT_SECONDS


def _end(path: Path, file: int) -> None:
    # May run inside the garbage collector, where nothing may be raised.
    with suppress(OSError):
        path.unlink()
    os.close(file)


def _close_all(files: dict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])
