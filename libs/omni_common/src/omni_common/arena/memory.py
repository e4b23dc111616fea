"""The arena's file, mapped: made by the pod's relay, opened by its stages."""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
import stat
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Self

from omni_common.arena.layout import ALIGNMENT, EXTENTS, ArenaHead, SlotHead
from omni_common.errors import LeaseLost

ARENA = "arena"
"""The file's name in the pod's shared folder."""

# NONBLOCK: a pipe of that name must not hold the opener.
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Arena:
    """The shared memory of a pod. Its memory is claimed and touched when it is made: first touch costs nine times a
    reused page, and pages are charged to the container that touches them first.

    Whoever may open the folder may write anywhere in it; that each writes only where it may is the rule, not the lock:
    head and table are the relay's, an extent is its owner's. Views that are lent cannot be written to.

    Mappings do not cross a fork: a forked child that touches one dies, rather than read what is no longer held for it.
    """

    epoch: int
    """Of this arena, chosen when it is made."""
    size: int
    """Of the whole file."""
    view: memoryview
    """All of it, to be written."""

    def __init__(self, file: int, head: ArenaHead) -> None:
        """Owns `file`, also when it raises."""
        self._file = file
        self._close = weakref.finalize(self, os.close, file)
        self._close.atexit = False
        self.epoch, self.size = head.epoch, head.size
        self.memory = Mapping(file, head.size, mmap.PROT_READ | mmap.PROT_WRITE)
        self.readonly = Mapping(file, head.size, mmap.PROT_READ)
        self.view = self.memory.view
        self._table = self.view[ArenaHead.SIZE : EXTENTS].cast("Q")

    @classmethod
    def create(cls, folder: Path, size: int) -> Self:
        """A new arena under the folder's name for it, in place of any other, which lives on with those that mapped it.

        Raises OSError when there is no room, ValueError for a size without room for a tensor.
        """
        head = ArenaHead(_epoch(), size // ALIGNMENT * ALIGNMENT)
        if head.size < EXTENTS + SlotHead.SIZE:
            raise ValueError(f"an arena of {size} bytes has no room for a tensor")
        draft = folder / f"{ARENA}.draft"
        draft.unlink(missing_ok=True)
        file = os.open(draft, _FLAGS | os.O_CREAT | os.O_EXCL, 0o660)
        try:
            os.fchmod(file, 0o660)  # whatever the umask: stages of other users share the pod's group
            os.posix_fallocate(file, 0, head.size)
            os.pwrite(file, head.pack(), 0)
            draft.rename(folder / ARENA)
        except OSError:
            os.close(file)
            draft.unlink(missing_ok=True)
            raise
        return cls(file, head)

    @classmethod
    def adopt(cls, folder: Path, size: int) -> Self | None:
        """The arena that a former life of the relay made, if it is sound and of that size; its extents stand."""
        try:
            file = os.open(folder / ARENA, _FLAGS)
        except OSError:
            return None
        head = _head_of(file)
        if head is None or head.size != size // ALIGNMENT * ALIGNMENT:
            os.close(file)
            return None
        return cls(file, head)

    @classmethod
    def open(cls, folder: Path, epoch: int) -> Self:
        """The arena as a stage opens it. Raises LeaseLost if it is not the one of that epoch, OSError if none is."""
        file = os.open(folder / ARENA, _FLAGS)
        head = _head_of(file)
        if head is None or head.epoch != epoch:
            os.close(file)
            raise LeaseLost("the pod's arena is another one")
        return cls(file, head)

    @property
    def intact(self) -> bool:
        """False once the file was cut short."""
        return os.fstat(self._file).st_size >= self.size

    def extent_epoch(self, index: int) -> int:
        """The epoch of the grant that stands there, 0 for none."""
        return self._table[index]

    def set_extent_epoch(self, index: int, epoch: int) -> None:
        """The relay's alone."""
        self._table[index] = epoch

    def close(self) -> None:
        """Ends its use. The memory is unmapped when the last view of it is gone."""
        self._close()


class Mapping:
    """All of a file, mapped. Unmapped when it and every window are gone."""

    def __init__(self, file: int, size: int, protection: int) -> None:
        # POPULATE: a fault costs as much as copying the page.
        self._memory = mmap.mmap(file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=protection)
        self._memory.madvise(mmap.MADV_DONTFORK)
        self.view = memoryview(self._memory)
        self.address = address_of(self._memory)
        self._window = _window_of(size)

    def window(self) -> Window:
        """Something to look at it through whose death is noticed."""
        window = self._window.from_address(self.address)
        window.mapping = self  # which an address does not keep alive
        return window


class Window(ctypes.Array[ctypes.c_ubyte]):
    """All of a mapping, for one view of a part of it. It lives for as long as any view or array made from that.

    A finalizer of its own rather than `weakref.finalize`, which takes three times as long for each tensor.
    """

    _length_ = 0
    _type_ = ctypes.c_ubyte
    __slots__ = ("_args", "_ended", "mapping")

    mapping: Mapping
    _ended: Callable[..., object]
    _args: tuple[object, ...]

    def part(self, start: int, length: int) -> memoryview:
        """Its bytes. The type says writable even where the mapping is not."""
        return memoryview(self).cast("B")[start : start + length]

    def then(self, ended: Callable[..., object], *args: object) -> None:
        """From now on `ended(*args)` is called when the last view or array is gone, from whatever thread dropped that
        and possibly from inside the garbage collector: it must not block, take a lock or raise. What lives as long as
        the interpreter never ends."""
        self._args, self._ended = args, ended

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if (ended := getattr(self, "_ended", None)) is not None and not at_exit():
            ended(*self._args)


def _window_of(size: int) -> type[Window]:
    """ctypes knows the size of an array by its type, and making one takes longer than handing a tensor over."""
    return type("Window", (Window,), {"_length_": size, "__slots__": ()})


def _epoch() -> int:
    return secrets.randbits(64) or 1


def _head_of(file: int) -> ArenaHead | None:
    """The head of a sound arena."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_size < EXTENTS + SlotHead.SIZE:
        return None
    head = ArenaHead.parse(os.pread(file, ArenaHead.SIZE, 0))
    return head if head is not None and head.epoch and head.size == status.st_size else None


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the C API: ctypes shows the address of writable memory only."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


# Prototypes of our own, which convert what they are called with: those of `ctypes.pythonapi` are everybody's.
_BUFFER = ctypes.POINTER(_PyBuffer)
_get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, _BUFFER, ctypes.c_int)(
    ("PyObject_GetBuffer", ctypes.pythonapi)
)
_release_buffer = ctypes.PYFUNCTYPE(None, _BUFFER)(("PyBuffer_Release", ctypes.pythonapi))


def address_of(data: mmap.mmap | memoryview) -> int:
    """Where a contiguous buffer begins, read-only ones included."""
    buffer = _PyBuffer()
    _get_buffer(data, buffer, 0)
    address = buffer.buf
    _release_buffer(buffer)
    return int(address or 0)
