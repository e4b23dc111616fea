"""Records as the bytes of a connection, which tests change before someone reads them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.unit.relay.wire.meeting import PATIENCE, noise

from omni_relay.wire.aead import AeadSink, AeadSource
from omni_relay.wire.line import TcpLine
from omni_relay.wire.plain import PlainSink, PlainSource
from omni_relay.wire.record import BodyDamaged, ChannelLost, Kind, Sink, Source, sent_length

SALT = 0xFEDC_BA98_7654_3210
SECRET = bytes(range(32))
CONNECTION = bytes(range(16))
ALL = frozenset(Kind)


@dataclass(frozen=True)
class Sent:
    """One record, as it was given to a sink."""

    kind: Kind
    body: bytes
    number: int
    offset: int


RECORDS = (
    Sent(Kind.CONTROL, noise(190), 0, 0),
    Sent(Kind.PIECE, noise(600), 7, 0),
    Sent(Kind.HEARTBEAT, b"", 0, 0),
    Sent(Kind.PIECE, noise(250), 7, 600),
    Sent(Kind.LANDED, noise(64), 8, 2**40),
    Sent(Kind.CONTROL, noise(30), 0, 0),
)
"""Some of everything; over 10,000 bits."""


@dataclass(frozen=True)
class Channel:
    """A way of sending records over a line, with keys that never change, so that its bytes can be compared."""

    name: str
    sink: Callable[[TcpLine], Sink]
    source: Callable[[TcpLine], Source]


PLAIN = Channel("plain", lambda line: PlainSink(line, SALT, ALL), lambda line: PlainSource(line, SALT))


def aead(secret: bytes = SECRET, connection: bytes = CONNECTION) -> Channel:
    return Channel(
        "aead",
        lambda line: AeadSink(line, SALT, ALL, secret, connection),
        lambda line: AeadSource(line, SALT, secret, connection),
    )


AEAD = aead()


def written(channel: Channel, records: Iterable[Sent] = RECORDS) -> list[bytes]:
    """Each record's bytes on the connection."""
    near, far = socket.socketpair()
    with near, far:
        sink = channel.sink(TcpLine(near, PATIENCE))
        return [_written(sink, far, record) for record in records]


def _written(sink: Sink, far: socket.socket, record: Sent) -> bytes:
    sink.send(record.kind, record.body, number=record.number, offset=record.offset)
    return far.recv(2**20)


@dataclass(frozen=True)
class Got:
    """What a source made of a stream: the intact records, how many pieces came damaged, and its last word."""

    records: list[Sent]
    damaged: int
    end: ChannelLost


def read(channel: Channel, stream: bytes) -> Got:
    """Until the stream ends or its reader ends it. A LANDED is given without its bytes."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(stream)
        far.shutdown(socket.SHUT_WR)
        return _read(channel.source(TcpLine(near, PATIENCE)))


def _read(source: Source) -> Got:
    records: list[Sent] = []
    damaged = 0
    while True:
        try:
            head = source.receive()
            body = memoryview(bytearray(sent_length(head)))
            if body:
                source.receive_body(body)
            records.append(Sent(head.kind, bytes(body), head.number, head.offset))
        except BodyDamaged:
            damaged += 1
        except ChannelLost as end:
            return Got(records, damaged, end)


def delivered(records: Iterable[Sent] = RECORDS) -> list[Sent]:
    """As `read` gives them."""
    return [
        Sent(record.kind, b"" if record.kind is Kind.LANDED else record.body, record.number, record.offset)
        for record in records
    ]
