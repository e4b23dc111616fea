"""Copies between a device and the host's memory: straight from and to the arena where its pages are registered.

A copy from or to pageable memory goes through a bounce buffer of the driver's and holds up what follows it. So the
arena's mappings are registered with CUDA once a process, and copies run on streams of their own beside the model's.

What is here returns only when the bytes are where they belong: whoever lent the memory may take it back then. To
overlap copies with transfers is the caller's part, who has a thread for it (`omni_common.transfer.copies`).
"""

from __future__ import annotations

import contextlib
import logging
from functools import cache
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

# Of cudaHostRegister: for all devices; for memory that this process has mapped to be read only.
_PORTABLE = 1
_READ_ONLY = 8
_DONE = 0


class Registration:
    """Memory that CUDA knows; it stays mapped until `close`."""

    def __init__(self, memory: memoryview) -> None:
        self._memory: memoryview | None = memory

    def close(self) -> None:
        """Copies from and to it go on, more slowly. Idempotent."""
        memory, self._memory = self._memory, None
        if memory is not None:
            _runtime().cudaHostUnregister(_address(memory))


def register(memory: memoryview) -> Registration | None:
    """Has copies of devices go straight from and to this memory, all of a mapping; a read-only view says that the
    mapping is. None, and a line in the log, where CUDA refuses that (it may not lock so much memory, or not such
    memory): they work then all the same."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        return None
    flags = _PORTABLE | (_READ_ONLY if memory.readonly else 0)
    error = int(_runtime().cudaHostRegister(_address(memory), memory.nbytes, flags))
    if error == _DONE:
        return Registration(memory)
    logger.warning(
        "the arena could not be registered with CUDA; copies take a detour",
        extra={"bytes": memory.nbytes, "error": error},
    )
    _forget_error()
    return None


def download(flat: torch.Tensor, into: memoryview, made: torch.cuda.Event | None) -> None:
    """Copies bytes (one dimension, uint8) to the host as soon as `made` has happened on their device."""
    if not flat.numel():
        return
    host = torch.frombuffer(into, dtype=torch.uint8)
    if flat.device.type != "cuda":
        host.copy_(flat)
        return
    stream = side_stream(flat.device.index, "down")
    with torch.cuda.stream(stream):
        if made is not None:
            stream.wait_event(made)
        host.copy_(flat, non_blocking=True)
    _wait_for(stream)


def upload(flat: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies from the host to a device; the caller uses the result on its current stream."""
    if device.type != "cuda" or not flat.is_pinned():
        return flat.to(device)
    current = torch.cuda.current_stream(device)
    stream = side_stream(current.device_index, "up")
    with torch.cuda.stream(stream):
        # Made on the side stream: memory that is free on the other one may still be written to by what runs there.
        there = flat.to(stream.device, non_blocking=True)
    _wait_for(stream)
    there.record_stream(current)
    return there


def _wait_for(stream: torch.cuda.Stream) -> None:
    """Until all that is on the stream has been done; asleep, since a core that spins is one that no model has."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    event.synchronize()


@cache
def side_stream(index: int, use: str) -> torch.cuda.Stream:
    """One for each device and use: a device copies both ways at once."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0])


def _forget_error() -> None:
    """CUDA remembers its last error, and torch would blame the next kernel for it: this one is launched for that."""
    with contextlib.suppress(RuntimeError):
        torch.ones(1, device="cuda")
