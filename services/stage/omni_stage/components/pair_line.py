"""What the two ends of a pair say to each other beside the communicator: who wants which tensor, and that it comes.

A Unix socket in the pod's shared folder, so each end hears at once when the other process ends, which NCCL does not.
Sender and receiver belong to one release, so there are no versions; whoever may open the folder is trusted with what
is in it, as with the arena.

    receiver                     sender
    MEET  number ──────────────▶         both join the communicator that meets at the file of that number
    FETCH number, length ──────▶
              ◀────────────── COMES number, length     then its bytes, through the communicator
              ◀────────────── GONE  number             nothing comes: it was withdrawn
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omni_common.deadline import Deadline

_FORMAT = Struct("<B7xQQd")

_CLOSED = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class LineLost(Exception):
    """The other end is gone, silent or mad. Completes "the pair …"."""


class Kind(IntEnum):
    MEET = 1
    FETCH = 2
    COMES = 3
    GONE = 4


@dataclass(frozen=True, slots=True)
class Message:
    """`seconds` is how long the sender of it waits for what follows."""

    kind: Kind
    number: int
    length: int = 0
    seconds: float = 0.0

    def pack(self) -> bytes:
        return _FORMAT.pack(self.kind, self.number, self.length, self.seconds)

    @classmethod
    def parse(cls, data: bytes) -> Message | None:
        if len(data) != _FORMAT.size:
            return None
        kind, number, length, seconds = _FORMAT.unpack(data)
        if kind not in set(Kind) or not isfinite(seconds):
            return None
        return cls(Kind(kind), number, length, seconds)


class Line:
    """One end, used by one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, message: Message, deadline: Deadline) -> None:
        """Raises LineLost."""
        try:
            self._socket.settimeout(max(0.001, deadline.remaining))
            self._socket.send(message.pack())
        except OSError as error:
            raise LineLost("lost its other end") from error

    def receive(self, deadline: Deadline | None) -> Message:
        """Without a deadline for who may have nothing to say for long; the end of its process is heard all the same.
        Raises LineLost."""
        try:
            self._socket.settimeout(None if deadline is None else max(0.001, deadline.remaining))
            data = self._socket.recv(_FORMAT.size + 1)
        except OSError as error:
            raise LineLost("lost its other end" if not isinstance(error, TimeoutError) else "got no answer") from error
        message = Message.parse(data)
        if message is None:
            raise LineLost("lost its other end" if not data else "got a message that is none")
        return message

    def is_cut(self) -> bool:
        """Whether the other end has hung up."""
        poller = select.poll()
        poller.register(self._socket, select.POLLRDHUP)
        return any(events & _CLOSED for _, events in poller.poll(0))

    def cut(self) -> None:
        """From any thread: whoever uses either end hears of it, and closes its own."""
        with suppress(OSError):  # the other end may be gone
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._socket.close()


def listen(folder: Path, owner: int) -> socket.socket:
    """Where the receivers of a sending process find it. Raises OSError."""
    (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short(folder / FOLDER) as short:
        listener.bind(f"{short}/{owner:016x}.sock")
    listener.listen()
    return listener


def dial(folder: Path, owner: int, deadline: Deadline) -> Line:
    """Raises LineLost."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(folder / FOLDER) as short:
            sock.settimeout(max(0.001, deadline.remaining))
            sock.connect(f"{short}/{owner:016x}.sock")
    except OSError as error:
        sock.close()
        raise LineLost("finds no other end") from error
    return Line(sock)


FOLDER = "pairs"
"""In the pod's shared folder: a socket for each process that offers, and the files at which communicators meet."""


def meeting(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:016x}"


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path of the folder that fits into the 107 bytes of a socket's."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{at}"
    finally:
        os.close(at)
