"""The line between rank 0 and one follower: a pair of sockets, messages with their length before them.

Words to the followers go here and not by a collective: the next step may be hours away, and a rank that waits in NCCL
keeps its GPU busy and cannot tell a quiet rank 0 from one that is gone. A line says so at once.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio

_LENGTH = struct.Struct("<I")
# A step's header has some hundred bytes; one with thousands of sequences and blocks stays far below this.
MAX_MESSAGE = 16 << 20
_PIECE = 65536


class LineBroken(Exception):
    """The other end is gone, hangs, or sends what is no message. Completes "the line …"."""


class Line:
    """One end. One thread sends, one receives; `shut` may be called from any."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = bytearray()

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: bytes, timeout: float) -> None:
        """Raises LineBroken, also when the other end takes nothing for so many seconds."""
        self._end.settimeout(timeout)
        try:
            self._end.sendall(_LENGTH.pack(len(message)) + message)
        except OSError as error:
            raise LineBroken(f"takes nothing ({error})") from error

    def receive(self) -> bytes | None:
        """The next message, waiting for it as long as the other end lives; None at the end."""
        self._end.settimeout(None)
        while (message := self._next()) is None:
            if not self._fill():
                return None
        return message

    async def messages(self) -> AsyncIterator[bytes]:
        """All that come, until the end. On the event loop."""
        while True:
            while (message := self._next()) is not None:
                yield message
            await anyio.wait_readable(self._end)
            if not self._fill():
                return

    def shut(self) -> None:
        """Both ends read the end of the line. Idempotent."""
        with suppress(OSError):  # the other end is gone already
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._end.close()

    def _fill(self) -> bool:
        try:
            piece = self._end.recv(_PIECE)
        except ConnectionError:  # it ended with something of ours unread
            return False
        self._rest += piece
        return bool(piece)

    def _next(self) -> bytes | None:
        if len(self._rest) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._rest)
        if length > MAX_MESSAGE:
            raise LineBroken(f"announces a message of {length} bytes")
        end = _LENGTH.size + length
        if len(self._rest) < end:
            return None
        message = bytes(self._rest[_LENGTH.size : end])
        del self._rest[:end]
        return message


def pair() -> tuple[Line, socket.socket]:
    """Our end, and the one for the follower."""
    ours, theirs = socket.socketpair()
    return Line(ours), theirs
