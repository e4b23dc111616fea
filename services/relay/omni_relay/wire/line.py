"""A byte stream between two relays after the handshake: whole writes, whole reads, or the connection is over."""

from __future__ import annotations

import socket
from functools import partial
from typing import Protocol

from omni_relay.wire import sockets
from omni_relay.wire.record import Body, ChannelLost

# Of the kernel: a small record waits for the next one, and one wake-up of the peer serves both.
_MORE = getattr(socket, "MSG_MORE", 0)


class Line(Protocol):
    """What records travel on. One thread writes, one reads; any may cut."""

    def write(self, head: Body, body: Body, *, more: bool = False) -> None:
        """Head and body are in the kernel's hands when this returns. After ChannelLost there is only ChannelLost: a
        record that was sent in part is never followed by another. `more` says that another record follows at once."""

    def read(self, into: memoryview) -> None:
        """Fills `into`, which is not empty. Raises ChannelLost."""

    def fileno(self) -> int: ...

    def cut(self) -> None: ...

    def close(self) -> None: ...


class TcpLine:
    """A bare socket: one system call writes a record, one reads a body in its place."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._socket = sock
        self._timeout = timeout
        self._lost = False
        self._receive = partial(sock.recv_into, flags=socket.MSG_WAITALL)
        sockets.block(sock, timeout)

    def write(self, head: Body, body: Body, *, more: bool = False) -> None:
        if self._lost:
            raise ChannelLost("The connection was lost before.")
        self._lost = True
        try:
            sent = self._socket.sendmsg((head, body), (), _MORE if more else 0)
        except OSError as error:
            raise sockets.lost(error, f"took nothing for {self._timeout:g} s") from error
        if sent != len(head) + len(body):
            self._write_rest((head, body), sent)
        self._lost = False

    def _write_rest(self, parts: tuple[Body, Body], sent: int) -> None:
        for part in parts:
            sockets.write_whole(self._socket.send, memoryview(part)[sent:], self._timeout)
            sent = max(0, sent - len(part))

    def read(self, into: memoryview) -> None:
        sockets.read_whole(self._receive, into, self._timeout)

    def fileno(self) -> int:
        return self._socket.fileno()

    def cut(self) -> None:
        sockets.cut(self._socket)

    def close(self) -> None:
        self._socket.close()
