"""How connections begin: dialled and accepted, tuned, past the handshake, and ready for records.

A pair is two connections that the same relay dials: on the *push* connection it alone sends, on the *reply* connection
the other alone does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omni_common.deadline import Deadline
from omni_relay.wire import handshake, sockets
from omni_relay.wire.credentials import Credentials
from omni_relay.wire.handshake import HandshakeFailed, Refusal, Role, Session, Words
from omni_relay.wire.pairs import Pair, Pairs
from omni_relay.wire.plain import PlainSink, PlainSource
from omni_relay.wire.record import Sink, Source
from omni_relay.wire.sockets import Link


@dataclass(frozen=True, slots=True)
class PushDialled:
    """This relay sends. `peer` is the other's name as its certificate has it, "" without TLS."""

    pair: Pair
    peer: str
    sink: Sink


@dataclass(frozen=True, slots=True)
class PushAccepted:
    """The peer sends. Its `pair` waits in Pairs until the reply connection comes or someone forgets it."""

    pair: Pair
    peer: str
    source: Source


@dataclass(frozen=True, slots=True)
class ReplyAccepted:
    """This relay answers what comes on the push connection of the same `pair`."""

    pair: Pair
    peer: str
    sink: Sink


def dial_push(address: str, credentials: Credentials, link: Link, deadline: Deadline) -> PushDialled:
    """Opens the push connection to the relay at host:port. Raises HandshakeFailed."""
    sock = _connect(address, link, deadline)
    with _closed_on_failure(sock):
        words = Words(sock, deadline)
        handshake.greet(words, credentials.mode)
        session = handshake.prove(words, credentials.mode, b"", credentials.token, None)
        return PushDialled(session.pair, "", _sink(sock, session, link))


def dial_reply(address: str, credentials: Credentials, link: Link, pair: Pair, deadline: Deadline) -> Source:
    """Opens the reply connection that belongs to `pair`'s push connection. Raises HandshakeFailed."""
    sock = _connect(address, link, deadline)
    with _closed_on_failure(sock):
        words = Words(sock, deadline)
        handshake.greet(words, credentials.mode)
        session = handshake.prove(words, credentials.mode, b"", credentials.token, pair)
        return _source(sock, session, link)


def accept(
    sock: socket.socket, credentials: Credentials, link: Link, pairs: Pairs, deadline: Deadline
) -> PushAccepted | ReplyAccepted:
    """Takes a connection that came in. Raises HandshakeFailed, and then the socket is closed."""
    with _closed_on_failure(sock):
        sockets.tune(sock, link)
        words = Words(sock, deadline)
        handshake.answer_greeting(words, credentials.mode)
        session = handshake.check_proof(words, credentials.mode, b"", credentials.token, pairs)
        if session.role is Role.PUSH:
            return PushAccepted(session.pair, "", _source(sock, session, link))
        return ReplyAccepted(session.pair, "", _sink(sock, session, link))


def _connect(address: str, link: Link, deadline: Deadline) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        sock = socket.create_connection((host.strip("[]"), int(port)), timeout=max(deadline.remaining, 0.001))
    except (OSError, ValueError) as error:
        raise HandshakeFailed(Refusal.UNREACHABLE, f"The relay at {address} cannot be reached: {error}.") from error
    sockets.tune(sock, link)
    return sock


@contextmanager
def _closed_on_failure(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        sock.close()
        raise HandshakeFailed(Refusal.DEADLINE, "The handshake did not end before its deadline.") from error
    except OSError as error:
        sock.close()
        raise HandshakeFailed(Refusal.LOST, f"The connection broke within the handshake: {error}.") from error
    except HandshakeFailed:
        sock.close()
        raise


def _sink(sock: socket.socket, session: Session, link: Link) -> Sink:
    return PlainSink(sock, session.salt, link)


def _source(sock: socket.socket, session: Session, link: Link) -> Source:
    return PlainSource(sock, session.salt, link)
