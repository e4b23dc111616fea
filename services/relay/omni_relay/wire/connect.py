"""How connections begin: dialled and accepted, tuned, past the handshake, and ready for records.

A pair is two connections that the same relay dials: on the *push* connection it alone sends, on the *reply* connection
the other alone does. What each step is for stands in handshake.py, tls.py and aead.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omni_common.certificates import fingerprint
from omni_common.deadline import Deadline
from omni_relay.wire import handshake, sockets, tls
from omni_relay.wire.aead import AeadSink, AeadSource
from omni_relay.wire.credentials import Credentials, Mode
from omni_relay.wire.handshake import Role, Session, Words
from omni_relay.wire.line import Line, TcpLine
from omni_relay.wire.pairs import Pair, Pairs
from omni_relay.wire.plain import PlainSink, PlainSource
from omni_relay.wire.record import Kind, Sink, Source
from omni_relay.wire.refusal import HandshakeFailed, Refusal
from omni_relay.wire.sockets import Link

LINGER = 0.5
"""Seconds that a refused client has to read why. Without it, what it has sent meanwhile would reset the connection
under the alert that names the fault of its certificate."""
_LINGERING_READS = 16
"""More than an honest client has said by then."""


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
    """Opens the push connection to the relay at host:port. Raises HandshakeFailed.

    A host that is a name is looked up first, which no deadline bounds; the mesh uses the addresses of pods.
    """
    with _dialled(address, credentials, link, deadline) as opening:
        session = opening.prove(None)
        return PushDialled(session.pair, opening.peer, opening.sink(session, link))


def dial_reply(address: str, credentials: Credentials, link: Link, pair: Pair, deadline: Deadline) -> Source:
    """Opens the reply connection that belongs to `pair`'s push connection. Raises HandshakeFailed."""
    with _dialled(address, credentials, link, deadline) as opening:
        return opening.source(opening.prove(pair), link)


def accept(
    sock: socket.socket, credentials: Credentials, link: Link, pairs: Pairs, deadline: Deadline
) -> PushAccepted | ReplyAccepted:
    """Takes a connection that came in. Raises HandshakeFailed, and then the socket is closed."""
    opening = _Opening(sock, credentials, deadline, serving=True)
    with _closed_on_failure(opening):
        sockets.tune(sock, link)
        opening.secure()
        session = opening.check_proof(pairs)
        if session.role is Role.REPLY:
            return ReplyAccepted(session.pair, opening.peer, opening.sink(session, link))
        try:
            return PushAccepted(session.pair, opening.peer, opening.source(session, link))
        except OSError:
            pairs.forget(session.pair)
            raise


class _Opening:
    """A connection from its first byte to its first record. Its methods raise HandshakeFailed and OSError."""

    def __init__(self, sock: socket.socket, credentials: Credentials, deadline: Deadline, *, serving: bool) -> None:
        self._socket = sock
        self._credentials = credentials
        self._deadline = deadline
        self._serving = serving
        self._certificates = b""
        self.peer = ""

    def secure(self) -> None:
        """Greets, and does what the mode asks for before anything is proved."""
        greet = handshake.answer_greeting if self._serving else handshake.greet
        greet(Words(self._socket, self._deadline), self._credentials.mode)
        if self._credentials.certificates is None:
            return
        loaded = self._credentials.certificates.current()
        context = loaded.server if self._serving else loaded.client
        wrapped = context.wrap_socket(self._socket, server_side=self._serving, do_handshake_on_connect=False)
        self._socket = wrapped
        wrapped.settimeout(max(self._deadline.remaining, sockets.MOMENT))
        wrapped.do_handshake()
        theirs = fingerprint(wrapped.getpeercert(binary_form=True) or b"")
        self._certificates = theirs + loaded.fingerprint if self._serving else loaded.fingerprint + theirs
        self.peer = tls.allowed_name(wrapped, self._credentials.peer_names)

    def prove(self, pair: Pair | None) -> Session:
        words = Words(self._socket, self._deadline)
        return handshake.prove(words, self._credentials.mode, self._certificates, self._credentials.token, pair)

    def check_proof(self, pairs: Pairs) -> Session:
        words = Words(self._socket, self._deadline)
        return handshake.check_proof(words, self._credentials.mode, self._certificates, self._credentials.token, pairs)

    def sink(self, session: Session, link: Link) -> Sink:
        line = self._line(link)
        checked = _checked(self._credentials.mode, link)
        if self._credentials.mode is Mode.AEAD:
            return AeadSink(line, session.salt, checked, session.record_secret, session.connection)
        return PlainSink(line, session.salt, checked)

    def source(self, session: Session, link: Link) -> Source:
        line = self._line(link)
        if self._credentials.mode is Mode.AEAD:
            return AeadSource(line, session.salt, session.record_secret, session.connection)
        return PlainSource(line, session.salt)

    def _line(self, link: Link) -> Line:
        if not isinstance(self._socket, ssl.SSLSocket):
            return TcpLine(self._socket, link.timeout)
        if self._credentials.mode is Mode.TLS:
            return tls.TlsLine(self._socket, link.timeout)
        self._socket.settimeout(max(self._deadline.remaining, sockets.MOMENT))
        self._socket = tls.unwrapped(self._socket)
        return TcpLine(self._socket, link.timeout)

    def close(self) -> None:
        self._socket.close()

    def linger(self) -> None:
        """Ends this side, and waits a little for the peer to end the other. What comes meanwhile is dropped."""
        soon = self._deadline.sooner(LINGER)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            for _ in range(_LINGERING_READS):
                self._socket.settimeout(max(soon.remaining, sockets.MOMENT))
                if not socket.socket.recv(self._socket, 4096):
                    return


@contextmanager
def _dialled(address: str, credentials: Credentials, link: Link, deadline: Deadline) -> Iterator[_Opening]:
    host, _, port = address.rpartition(":")
    try:
        sock = socket.create_connection((host.strip("[]"), int(port)), max(deadline.remaining, sockets.MOMENT))
    except (OSError, ValueError) as error:
        raise HandshakeFailed(Refusal.UNREACHABLE, f"The relay at {address} cannot be reached: {error}.") from error
    opening = _Opening(sock, credentials, deadline, serving=False)
    with _closed_on_failure(opening):
        sockets.tune(sock, link)
        opening.secure()
        yield opening


@contextmanager
def _closed_on_failure(opening: _Opening) -> Iterator[None]:
    try:
        yield
    except HandshakeFailed:
        opening.close()
        raise
    except TimeoutError as error:
        opening.close()
        raise HandshakeFailed(Refusal.DEADLINE, "The handshake did not end before its deadline.") from error
    except ssl.SSLError as error:
        opening.linger()
        opening.close()
        raise tls.refused(error) from error
    except OSError as error:
        opening.close()
        raise HandshakeFailed(Refusal.LOST, f"The connection broke within the handshake: {error}.") from error


def _checked(mode: Mode, link: Link) -> frozenset[Kind]:
    """The kinds whose bodies carry checksums. TLS and AEAD find every change by themselves."""
    if mode is Mode.NONE:
        return frozenset((Kind.CONTROL, Kind.PIECE, Kind.LANDED) if link.checksums else (Kind.CONTROL,))
    return frozenset((Kind.LANDED,) if link.checksums else ())
