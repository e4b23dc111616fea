"""Communicators of two processes, one that sends and one that receives: NCCL between GPUs, gloo where there are none.

They are made of torch's process groups without its global state, so a process has as many as it needs, and each lives
and dies by itself. Gloo stands in for NCCL in tests: the life of a pair is the same code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from omni_common.deadline import Deadline
from omni_stage.components.device_memory import TorchMemory, bytes_of
from omni_stage.components.expendable import Expected

SENDER, RECEIVER = 0, 1

# Seconds between two looks at a GPU: a tenth of what a large tensor takes.
_LOOK = 0.0001


class GroupFailed(Expected):
    """The communicator is of no more use. Completes "the pair …"."""


class NoMemory(Expected):
    """The device has no room for a tensor. Completes "the pair …"."""


class Group(Protocol):
    """One end. One thread uses it, but for `interrupt`; after GroupFailed only `close` may follow."""

    def allocate(self, length: int) -> torch.Tensor:
        """Bytes to receive into. Raises NoMemory."""

    def send(self, memory: TorchMemory, deadline: Deadline) -> None:
        """Returns when the bytes are no longer read. Raises GroupFailed."""

    def receive(self, flat: torch.Tensor, deadline: Deadline) -> TorchMemory:
        """Returns when the bytes are there. Raises GroupFailed."""

    def interrupt(self) -> None:
        """From any thread: what is under way is in vain."""

    def close(self) -> None: ...


MakeGroup = Callable[[Path, int, Deadline], Group]
"""Joins the group that meets at a file, as SENDER or RECEIVER; waits for the other end. Raises GroupFailed."""


class GlooGroup:
    """Over TCP on this machine. A peer that dies is noticed by itself."""

    def __init__(self, meeting: Path, rank: int, deadline: Deadline) -> None:
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = left(deadline)
        with said("did not come about"):
            self._group: Any = dist.ProcessGroupGloo(meet_at(meeting, 2, deadline), rank, 2, options)

    def allocate(self, length: int) -> torch.Tensor:
        return torch.empty(length, dtype=torch.uint8)

    def send(self, memory: TorchMemory, deadline: Deadline) -> None:
        with said("broke"):
            self._group.send([bytes_of(memory.tensor())], RECEIVER, 0).wait(left(deadline))

    def receive(self, flat: torch.Tensor, deadline: Deadline) -> TorchMemory:
        with said("broke"):
            self._group.recv([flat], SENDER, 0).wait(left(deadline))
        return TorchMemory(flat)

    def interrupt(self) -> None:
        """Gloo's own deadline ends what is under way."""

    def close(self) -> None:
        self._group.abort()
        del self._group


class NcclGroup:
    """Between two GPUs; NCCL refuses two ends on one. It does not notice a peer that dies: `interrupt` is for that.

    The thread that makes it must have chosen the device, and keeps it. Transfers run on a stream of their own.
    """

    def __init__(self, meeting: Path, rank: int, deadline: Deadline) -> None:
        patient_nccl(deadline)
        self._interrupted = False
        with said("did not come about"):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            options = dist.ProcessGroupNCCL.Options()
            self._group: Any = dist.ProcessGroupNCCL(meet_at(meeting, 2, deadline), rank, 2, options)
        try:
            self._make_sure(rank, deadline)
        except GroupFailed:
            self.close()
            raise

    def allocate(self, length: int) -> torch.Tensor:
        try:
            with torch.cuda.stream(self._stream):
                return torch.empty(length, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError as error:
            raise NoMemory(f"finds no room on the GPU for {length} bytes") from error

    def send(self, memory: TorchMemory, deadline: Deadline) -> None:
        self._wait_for(lambda: self._group.send([bytes_of(memory.tensor())], RECEIVER, 0), deadline)

    def receive(self, flat: torch.Tensor, deadline: Deadline) -> TorchMemory:
        self._wait_for(lambda: self._group.recv([flat], SENDER, 0), deadline)
        with torch.cuda.stream(self._stream):
            return TorchMemory(flat)

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        with said("could not be ended"):
            self._group.abort()
        del self._group

    def _make_sure(self, rank: int, deadline: Deadline) -> None:
        """The first transfer makes the communicator. This one has the deadline of the meeting, and nobody's bytes."""
        first = self.allocate(1)
        if rank == SENDER:
            self._wait_for(lambda: self._group.send([first], RECEIVER, 0), deadline)
        else:
            self.receive(first, deadline)

    def _wait_for(self, begin: Callable[[], Any], deadline: Deadline) -> None:
        with said("broke"), torch.cuda.stream(self._stream):
            begin().wait()  # has the stream wait, not this thread
            over = self._stream.record_event()
            while not over.query():
                if self._interrupted or deadline.passed:
                    raise GroupFailed("was given up")
                time.sleep(_LOOK)


def nccl_is_missing() -> str | None:
    """Why NCCL cannot be used here, or None."""
    if not dist.is_available() or not dist.is_nccl_available():
        return "this torch was built without NCCL"
    return None if torch.cuda.is_available() else "there is no GPU"


def patient_nccl(deadline: Deadline) -> None:
    """To be called before a communicator is made: it is ended by us and not by torch."""
    # Torch's watchdog would end the process when a peer dies or hangs, where our own deadlines end the pair.
    os.putenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    os.putenv("TORCH_NCCL_ENABLE_MONITORING", "0")
    # Without this a peer that dies while the two meet would hold this end for ever.
    os.putenv("TORCH_NCCL_USE_COMM_NONBLOCKING", "1")
    os.putenv("TORCH_NCCL_NONBLOCKING_TIMEOUT", str(max(1, round(deadline.remaining))))


def meet_at(meeting: Path, size: int, deadline: Deadline) -> Any:
    """The store by which so many processes find each other."""
    store = dist.FileStore(str(meeting), size)  # type: ignore[attr-defined]
    store.set_timeout(left(deadline))
    return store


def left(deadline: Deadline) -> timedelta:
    # Torch takes 0 for "no limit".
    return timedelta(milliseconds=max(1, round(deadline.remaining * 1000)))


@contextmanager
def said(what: str) -> Iterator[None]:
    """Torch's errors, without its trace of C++ functions."""
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        raise GroupFailed(f"{what} ({first[:200]})") from error
