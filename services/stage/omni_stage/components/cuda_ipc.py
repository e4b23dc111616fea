"""Tensors of one process on a GPU, looked at by another one of the same pod: no copy at all.

Only where both see the same GPU, the same process numbers and the same /dev/shm (`realm`), or torch's handles mean
nothing there. A handle is plain fields; nothing is pickled.

Who owns what: the producer keeps the tensor until the consumer releases it, and does not write to it. Beneath that lies
torch's own count, in a file in shared memory, which keeps the memory from being reused while the consumer has it open;
it survives nobody's death, so for a consumer that died the producer counts down itself (`Shares.lose`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from omni_stage.components.device_memory import TorchMemory, bytes_of, device_of
from omni_stage.components.pinned import side_stream


class CannotShare(Exception):
    """This tensor has to go another way. Completes "the tensor …"."""


@dataclass(frozen=True, slots=True)
class IpcHandle:
    """A tensor's `length` bytes from `start` on in a storage of `size` bytes, which lies at `offset` of what the
    handle `memory` names on the GPU `device`. The `event` (empty: none is needed) is when it is made; `counter` and
    `place` are torch's count of those who have it open."""

    device: str
    memory: bytes
    offset: int
    size: int
    start: int
    length: int
    event: bytes
    counter: bytes
    place: int


def realm() -> str:
    """Processes with the same one can open each other's handles, if they see the GPU. Empty: nobody can."""
    if not torch.cuda.is_available():
        return ""
    shared = os.stat("/dev/shm")  # noqa: S108  # where torch has its counts
    return f"{os.stat('/proc/self/ns/pid').st_ino:x}-{shared.st_dev:x}-{shared.st_ino:x}"


class Shares:
    """What this process has lent, by number. Thread-safe."""

    def __init__(
        self,
        make: Callable[[TorchMemory], IpcHandle] | None = None,
        undo: Callable[[IpcHandle], None] | None = None,
    ) -> None:
        """`make` makes handles, or raises CannotShare; `undo` counts down. By default both are CUDA's."""
        self._make = make or _share
        self._undo = undo or count_down
        self._lock = threading.Lock()
        self._lent: dict[int, tuple[TorchMemory, IpcHandle]] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._lent)

    def share(self, number: int, memory: TorchMemory) -> IpcHandle:
        """Lends it to one consumer until `release` or `lose`. Raises CannotShare."""
        handle = self._make(memory)
        with self._lock:
            self._lent[number] = memory, handle
        return handle

    def release(self, number: int) -> bool:
        """The consumer has let go of it. False if it was not lent (any more)."""
        with self._lock:
            return self._lent.pop(number, None) is not None

    def lose(self, number: int) -> bool:
        """The consumer's process is gone, and never will. False as in `release`."""
        with self._lock:
            lent = self._lent.pop(number, None)
        if lent is not None:
            self._undo(lent[1])
        return lent is not None


def open_shared(handle: IpcHandle, released: Callable[[], None]) -> TorchMemory:
    """The tensor, to be read only. `released` is called when the last view of it is gone, from whatever thread dropped
    that: it must not block. Not called when this raises CannotShare: then the caller owes the producer a
    `count_down`, and a word."""
    device = device_of(handle.device)
    if device is None or device.type != "cuda":
        raise CannotShare("lies on a GPU that this process does not see")
    if handle.start < 0 or handle.length <= 0 or handle.start + handle.length > handle.size:
        raise CannotShare("does not lie within its storage")
    try:
        with torch.cuda.stream(side_stream(device.index, "ipc")):
            storage = _storages()._new_shared_cuda(
                device.index,
                handle.memory,
                handle.size,
                handle.offset,
                handle.counter,
                handle.place,
                handle.event,
                bool(handle.event),
            )
            flat = torch.empty(0, dtype=torch.uint8, device=device)
            flat.set_(storage, handle.start, (handle.length,), (1,))
            memory = TorchMemory(flat, foreign=True)
    except RuntimeError as error:
        raise CannotShare("cannot be opened here") from error
    # Of the storage, since that is what views of it have in common.
    weakref.finalize(storage, released).atexit = False
    return memory


def count_down(handle: IpcHandle) -> None:
    """In the place of a consumer that never opened it, or died with it open. Once too often does no harm."""
    _storages()._release_ipc_counter_cuda(handle.counter, handle.place)


def _share(memory: TorchMemory) -> IpcHandle:
    if memory.foreign:
        raise CannotShare("is another process's")
    if not memory.device.startswith("GPU-") or not memory.nbytes:
        raise CannotShare("lies on no GPU")
    device = device_of(memory.device)
    assert device is not None and device.index is not None, "it is on one of ours"  # noqa: S101, PT018
    try:
        with torch.cuda.stream(side_stream(device.index, "ipc")):
            # The event is recorded on this stream, which waits for the one that makes the tensor, and for nothing else.
            flat = bytes_of(memory.tensor())
            _, handle, size, offset, counter, place, event, has_event = _fields(flat)
    except RuntimeError as error:  # memory that CUDA does not share, such as expandable segments of an old driver
        raise CannotShare("is in memory that cannot be shared") from error
    start = int(flat.storage_offset())
    event = event if has_event else b""
    return IpcHandle(memory.device, handle, offset, size, start, flat.numel(), event, counter, place)


def _fields(flat: torch.Tensor) -> Any:
    storage: Any = flat.untyped_storage()
    return storage._share_cuda_()


def _storages() -> Any:
    return torch.UntypedStorage
