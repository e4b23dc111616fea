"""The producer's side of the arena: its segment, the slots in it, and the leases on them."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena.layout import ALIGNMENT, SegmentHead, SlotHead, epoch_of, segment_name, slot_size
from omni_common.arena.space import FreeSpace
from omni_common.clock import Clock
from omni_common.tensor import Tensor

# Seconds between the end of a lease, after which no new view can be made, and the reuse of its bytes: views made just
# before belong to requests that have ended and go with them, at the latest after the model call that is under way.
GRACE = 10.0


@dataclass(slots=True)
class _Lease:
    offset: int
    length: int
    request_id: str
    expires: float


class ArenaWriter:
    """One producer's segment of the pod's arena.

    The segment's memory is claimed and touched when it is made: first touch costs nine times a reused page. A slot is
    free again when its consumer releases it or, if no release comes, GRACE after the lease expires. The segment's file
    is locked while its writer lives; whoever makes a segment removes those whose writers died.

    Not thread-safe: one thread, the event loop's, owns a writer. `put` copies at memory speed (16 MiB in about 2 ms).

    Raises OSError when the folder has no room for the segment.
    """

    def __init__(self, folder: Path, name: str, size: int, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._size = size // ALIGNMENT * ALIGNMENT
        if self._size < SegmentHead.SIZE + SlotHead.SIZE:
            raise ValueError(f"a segment of {size} bytes has no room for a tensor")
        self._epoch = secrets.randbits(64)
        self.segment = segment_name(name, self._epoch)
        self._path = folder / self.segment
        _remove_orphans(folder)
        self._file = _make_file(self._path, SegmentHead(self._epoch, self._size))
        self._memory = mmap.mmap(self._file, self._size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._view = memoryview(self._memory)
        self._space = FreeSpace()
        self._space.give(SegmentHead.SIZE, self._size - SegmentHead.SIZE)
        self._leases: dict[int, _Lease] = {}
        self._generation = 0

    @property
    def capacity(self) -> int:
        """Bytes for slots, heads included."""
        return self._size - SegmentHead.SIZE

    @property
    def in_use(self) -> int:
        """Bytes in leased slots, heads included."""
        return self.capacity - self._space.free

    @property
    def leases(self) -> int:
        return len(self._leases)

    def put(self, tensor: Tensor, request_id: str, expires: float) -> ArenaSlot | None:
        """Copies the tensor into a new slot, leased until `expires` on this writer's clock. None: no room just now."""
        length = tensor.nbytes
        start = self._space.take(slot_size(length))
        if start is None:
            return None
        self._generation += 1
        offset = start + SlotHead.SIZE
        self._leases[self._generation] = _Lease(offset, length, request_id, expires)
        self._view[offset : offset + length] = tensor.data
        self._write_head(self._generation)
        return ArenaSlot(segment=self.segment, epoch=self._epoch, offset=offset, generation=self._generation)

    def release(self, slot: ArenaSlot) -> None:
        """Frees a slot. One that is not leased (released before, expired, another segment's) changes nothing."""
        lease = self._leases.get(slot.generation)
        if lease is not None and (slot.segment, slot.epoch, slot.offset) == (self.segment, self._epoch, lease.offset):
            self._free(slot.generation)

    def release_request(self, request_id: str) -> None:
        """Ends a request's leases now: no new view can be made. Views of it may live, so its bytes come back when
        their consumers release them or GRACE is over."""
        now = self._clock()
        for generation, lease in self._leases.items():
            if lease.request_id == request_id and lease.expires > now:
                lease.expires = now
                self._write_head(generation)

    def reclaim(self, now: float) -> int:
        """Frees the slots whose leases ended GRACE ago or earlier; says how many."""
        over = [generation for generation, lease in self._leases.items() if lease.expires + GRACE <= now]
        for generation in over:
            self._free(generation)
        return len(over)

    def close(self) -> None:
        """Removes the segment's file. Readers that have mapped it keep their views."""
        self._path.unlink(missing_ok=True)
        self._view.release()
        self._memory.close()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_head(self, generation: int) -> None:
        lease = self._leases[generation]
        head = SlotHead(self._epoch, generation, lease.length, lease.expires)
        self._view[lease.offset - SlotHead.SIZE : lease.offset] = head.pack()

    def _free(self, generation: int) -> None:
        lease = self._leases.pop(generation)
        start = lease.offset - SlotHead.SIZE
        self._view[start : lease.offset] = SlotHead.WIPED
        self._space.give(start, slot_size(lease.length))


def _make_file(path: Path, head: SegmentHead) -> int:
    """A locked, fully allocated file, open for writing. It gets its name last: who sees the name sees the lock."""
    draft = path.with_suffix(".draft")
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(file, 0, head.size)
        os.pwrite(file, head.pack(), 0)
        draft.rename(path)
    except OSError:
        os.close(file)
        draft.unlink(missing_ok=True)
        raise
    return file


def _remove_orphans(folder: Path) -> None:
    for path in _segments(folder):
        # Gone meanwhile, or its writer lives and holds the lock.
        with suppress(FileNotFoundError, BlockingIOError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)


def _segments(folder: Path) -> Iterable[Path]:
    return [path for path in folder.iterdir() if epoch_of(path.name) is not None and not path.is_symlink()]
