"""The consumer's side of the arena: maps producers' segments and lends read-only views of their slots."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena.layout import SegmentHead, SlotHead, epoch_of
from omni_common.clock import Clock
from omni_common.data_ref import checksum, tensor_from
from omni_common.errors import LeaseLost
from omni_common.tensor import Tensor

Released = Callable[[ArenaSlot], None]
"""Told that a slot's last view is gone. Called once per view, from whatever thread dropped it and possibly from
inside the garbage collector: it must not block, take a lock or raise (`deque.append`, `loop.call_soon_threadsafe`)."""


class ArenaReader:
    """Views of the tensors that other processes of the pod put into their segments.

    Nothing is copied. A view's bytes are checked before it is lent and stay as they are for as long as the view, or
    any array made from it, lives. The pages are mapped read-only. numpy honours that; torch does not know read-only
    tensors, so writing in place to one made from a view ends the process with SIGSEGV: clone first.

    Every reference that does not hold (no such segment, other epoch or generation, out of bounds, expired, other
    bytes than the checksum says) raises LeaseLost.

    Not thread-safe: one thread owns a reader. Views may go to any thread.
    """

    def __init__(self, folder: Path, clock: Clock = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._mapped: dict[str, _Segment] = {}

    @property
    def segments(self) -> int:
        """How many segments are mapped."""
        return len(self._mapped)

    def view(self, ref: DataRef, released: Released) -> Tensor:
        """The tensor that `ref` names; `released` is called when the last view of it is gone, unless this raises."""
        slot = ArenaSlot()
        slot.CopyFrom(ref.arena)  # of its own: a part of `ref` would keep all of its message in memory
        segment = self._segment(slot)
        segment.check(slot, ref.length, self._clock())
        window = segment.window()
        data = memoryview(window).cast("B")[slot.offset : slot.offset + ref.length].toreadonly()
        if ref.checksum and checksum(data) != ref.checksum:
            raise LeaseLost("the bytes in the arena are not those that were sent")
        tensor = tensor_from(ref, data)
        # The arguments keep the mapping alive for as long as the window.
        weakref.finalize(window, _return, released, slot, segment).atexit = False
        return tensor

    def close(self) -> None:
        """Forgets the mapped segments; each is unmapped when its last view is gone."""
        self._mapped.clear()

    def _segment(self, slot: ArenaSlot) -> _Segment:
        if (segment := self._mapped.get(slot.segment)) is None:
            self._forget_removed()
            segment = self._mapped[slot.segment] = self._map(slot)
        return segment

    def _forget_removed(self) -> None:
        # A removed file's memory is freed only when nobody maps it, and its producer will not write to it again.
        self._mapped = {name: segment for name, segment in self._mapped.items() if not segment.removed}

    def _map(self, slot: ArenaSlot) -> _Segment:
        if epoch_of(slot.segment) != slot.epoch:
            raise LeaseLost("the reference names no segment of the arena")
        try:
            # NONBLOCK: a pipe of that name must not hold the opener.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            return _Segment(os.open(self._folder / slot.segment, flags), slot.epoch)
        except OSError as error:
            raise LeaseLost("its producer's segment is gone") from error


class _Segment:
    """One mapped file. Owns `file`, also when it raises."""

    def __init__(self, file: int, epoch: int) -> None:
        weakref.finalize(self, os.close, file).atexit = False
        self._file = file
        self._size = os.fstat(file).st_size
        if self._size < SegmentHead.SIZE:
            raise LeaseLost("its producer's segment is damaged")
        self._memory = mmap.mmap(file, self._size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
        self._view = memoryview(self._memory)
        if SegmentHead.parse(self._view[: SegmentHead.SIZE]) != SegmentHead(epoch, self._size):
            raise LeaseLost("its producer's segment is damaged")
        self._address = _address_of(self._memory)
        self._window = ctypes.c_ubyte * self._size

    @property
    def removed(self) -> bool:
        return os.fstat(self._file).st_nlink == 0

    def check(self, slot: ArenaSlot, length: int, now: float) -> None:
        """Raises LeaseLost unless the slot is leased under that generation and holds `length` bytes."""
        if slot.offset < SegmentHead.SIZE + SlotHead.SIZE:
            raise LeaseLost("the reference names no slot of its segment")
        # A look at the size each time: reading beyond the end of a file that shrank would be SIGBUS.
        if slot.offset + length > self._size or os.fstat(self._file).st_size < self._size:
            raise LeaseLost("the reference reaches beyond its segment")
        head = SlotHead.parse(self._view[slot.offset - SlotHead.SIZE : slot.offset])
        if head is None or (head.epoch, head.generation, head.length) != (slot.epoch, slot.generation, length):
            raise LeaseLost("its slot is no longer leased to it")
        if head.expires <= now:
            raise LeaseLost("its lease has expired")

    def window(self) -> ctypes.Array[ctypes.c_ubyte]:
        """A new object over the whole mapping. What is derived from it holds it, so its end is that of the last view.

        It does not keep the mapping alive by itself.
        """
        return self._window.from_address(self._address)


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


def _address_of(memory: mmap.mmap) -> int:
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(memory), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def _return(released: Released, slot: ArenaSlot, _segment: _Segment) -> None:
    released(slot)
