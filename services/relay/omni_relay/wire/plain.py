"""Records in clear text over a TCP connection: one system call sends a piece, one receives its body in its place.

Nothing here is secret and nobody but the network itself is guarded against: the checks find accidents, not a person
who writes into the connection. (Who may open one at all is the handshake's affair.)
"""

from __future__ import annotations

import socket
from functools import partial

from omni_relay.wire import sockets
from omni_relay.wire.record import (
    CHECKED,
    BadRecord,
    Body,
    BodyDamaged,
    ChannelLost,
    Head,
    HeadReader,
    HeadWriter,
    Kind,
)
from omni_relay.wire.sockets import Link


class PlainSink:
    """The sending end. See record.Sink."""

    def __init__(self, sock: socket.socket, salt: int, link: Link) -> None:
        self._socket = sock
        self._timeout = link.timeout
        self._checksums = link.checksums
        self._heads = HeadWriter(salt)
        self._lost = False
        sockets.block(sock, link.timeout)

    def send(self, kind: Kind, body: Body = b"", *, number: int = 0, offset: int = 0) -> None:
        if self._lost:
            raise ChannelLost("The connection was lost before.")
        head = self._heads.write(kind, body, number, offset, checked=self._checksums or kind is Kind.CONTROL)
        parts = (head,) if kind is Kind.LANDED else (head, body)
        whole = sum(map(len, parts))
        self._lost = True  # a record of which a part was sent must not be followed by another
        try:
            sent = self._socket.sendmsg(parts)
        except OSError as error:
            raise sockets.lost(error, f"took nothing for {self._timeout:g} s") from error
        if sent != whole:
            self._send_rest(parts, sent)
        self._lost = False

    def _send_rest(self, parts: tuple[Body, ...], sent: int) -> None:
        for part in parts:
            sockets.write_whole(self._socket.send, memoryview(part)[min(sent, len(part)) :], self._timeout)
            sent = max(0, sent - len(part))

    def cut(self) -> None:
        sockets.cut(self._socket)

    def close(self) -> None:
        self._socket.close()


class PlainSource:
    """The receiving end. See record.Source."""

    def __init__(self, sock: socket.socket, salt: int, link: Link) -> None:
        self._socket = sock
        self._timeout = link.timeout
        self._heads = HeadReader(salt)
        self._head: Head | None = None
        self._receive = partial(sock.recv_into, flags=socket.MSG_WAITALL)
        sockets.block(sock, link.timeout)

    def receive(self) -> Head:
        sockets.read_whole(self._receive, self._heads.buffer, self._timeout)
        self._head = head = self._heads.read()
        return head

    def receive_body(self, into: memoryview) -> None:
        head = self._head
        if head is None or len(into) != head.length:
            raise ValueError(f"{len(into)} bytes are no place for the body of {head}")
        self._head = None
        if head.length:
            sockets.read_whole(self._receive, into, self._timeout)
        if head.flags & CHECKED and not head.fits(into):
            if head.kind is Kind.PIECE:
                raise BodyDamaged("A piece does not match its checksum.")
            raise BadRecord("A message does not match its checksum.")

    def cut(self) -> None:
        sockets.cut(self._socket)

    def close(self) -> None:
        self._socket.close()
