"""A byte stream between two relays after the handshake: whole writes, whole reads, or the connection is over."""

from __future__ import annotations

import socket
from functools import partial
from typing import Protocol

from omni_relay.wire import sockets
from omni_relay.wire.record import Body, ChannelLost

# Bytes that one call reads ahead at most: a few small records. What is read ahead of a piece has to be copied.
_AHEAD = 4096


class Line(Protocol):
    """What records travel on. One thread writes, one reads; any may cut."""

    def write(self, head: Body, body: Body, *, more: bool = False) -> None:
        """Head and body are in the kernel's hands when this returns. After ChannelLost there is only ChannelLost: a
        record that was sent in part is never followed by another. `more` says that another record follows at once:
        this one may wait for it."""

    def read(self, into: memoryview) -> None:
        """Fills `into`, which is not empty. Raises ChannelLost."""

    def fileno(self) -> int: ...

    def cut(self) -> None: ...

    def close(self) -> None: ...


class TcpLine:
    """A bare socket: one system call writes a record and the small one before it, and as few as can be read them."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._socket = sock
        self._timeout = timeout
        self._lost = False
        self._waiting = b""
        self._whole = partial(sock.recv_into, flags=int(socket.MSG_WAITALL))
        self._room = memoryview(bytearray(_AHEAD))
        self._ahead = self._room[:0]
        sockets.block(sock, timeout)

    def write(self, head: Body, body: Body, *, more: bool = False) -> None:
        if self._lost:
            raise ChannelLost("The connection was lost before.")
        if more:
            self._waiting += b"".join((head, body))
            return
        waiting, self._waiting = self._waiting, b""
        self._lost = True
        try:
            sent = self._socket.sendmsg((waiting, head, body))
        except OSError as error:
            raise sockets.lost(error, f"took nothing for {self._timeout:g} s") from error
        if sent != len(waiting) + len(head) + len(body):
            self._write_rest((waiting, head, body), sent)
        self._lost = False

    def _write_rest(self, parts: tuple[Body, ...], sent: int) -> None:
        for part in parts:
            sockets.write_whole(self._socket.send, memoryview(part)[sent:], self._timeout)
            sent = max(0, sent - len(part))

    def read(self, into: memoryview) -> None:
        size = len(into)
        if size > len(self._ahead):
            into = self._take_ahead(into)
            if len(into) >= _AHEAD:  # straight to its place
                sockets.read_whole(self._whole, into, self._timeout)
                return
            self._read_ahead(len(into))
            size = len(into)
        into[:] = self._ahead[:size]
        self._ahead = self._ahead[size:]

    def _take_ahead(self, into: memoryview) -> memoryview:
        """Gives out what has been read ahead, which is less than is asked for; returns what is left to be filled."""
        got = len(self._ahead)
        into[:got] = self._ahead
        self._ahead = self._room[:0]
        return into[got:]

    def _read_ahead(self, least: int) -> None:
        """So many bytes, and whatever else has come. Raises ChannelLost."""
        got = sockets.read_some(self._socket.recv_into, self._room, least, self._timeout)
        self._ahead = self._room[:got]

    def fileno(self) -> int:
        return self._socket.fileno()

    def cut(self) -> None:
        sockets.cut(self._socket)

    def close(self) -> None:
        self._socket.close()
