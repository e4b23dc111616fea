"""Where other relays connect: accepts, has each connection's handshake in a thread of its own, and brings the two
connections of a pair together."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from contextlib import suppress

from omni_common.deadline import Deadline
from omni_common.telemetry import names
from omni_relay.peers.inbound import Inbound, Lines
from omni_relay.peers.way import Way
from omni_relay.watched import start_thread
from omni_relay.wire.connect import PushAccepted, ReplyAccepted, accept
from omni_relay.wire.pairs import Pair, Pairs
from omni_relay.wire.record import Sink
from omni_relay.wire.refusal import HandshakeFailed, Refusal

logger = logging.getLogger(__name__)

# Handshakes under way. Those that come above it wait in the kernel: a burst of relays is normal, and one handshake
# takes milliseconds.
MAX_HANDSHAKES = 32
# Connections in all, two for each relay that pushes here. Those above it are closed at once.
MAX_CONNECTIONS = 256
_BACKLOG = 128
# Seconds after a connection could not be accepted: descriptors have run out, and some may come back.
_PAUSE = 0.1


def listen(bind: tuple[str, int]) -> socket.socket:
    """A socket that listens at that host and port; 0 takes a free one, `::` listens for IPv4 as well. Raises OSError
    when it cannot."""
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    both = bind[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(bind, family=family, backlog=_BACKLOG, dualstack_ipv6=both)


class Listener:
    """Owns the socket of `listen`."""

    def __init__(self, listening: socket.socket, way: Way) -> None:
        self._socket = listening
        self.connections = 0
        """Sockets of other relays that are open."""
        self._way = way
        self._pairs = Pairs()
        self._meetings = _Meetings()
        self._handshakes = threading.BoundedSemaphore(MAX_HANDSHAKES)
        self._changed = threading.Condition()
        self._inbound: dict[int, Inbound] = {}
        self._names = itertools.count(1)
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = start_thread("accept relays", self._accept_all)

    def tick(self, now: float) -> None:
        """To be called every second or so: closes reply connections that nobody has come for."""
        self._leave(self._meetings.forget_before(now - 2 * self._way.link.timeout))

    def close(self, deadline: Deadline) -> None:
        """Takes nobody any more and cuts everybody; their threads have until the deadline to notice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for inbound in self._inbound.values():
                inbound.cut()
        with suppress(OSError):  # not connected, says the kernel; but `accept` wakes
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(deadline.remaining)
        self._socket.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._inbound, deadline.remaining)
        self._leave(self._meetings.forget_before(self._way.clock()))

    def _accept_all(self) -> None:
        while not self._closed:
            self._handshakes.acquire()  # no deadline: each handshake has one
            try:
                sock, address = self._socket.accept()
            except OSError as error:
                self._handshakes.release()
                self._pause(error)
                continue
            peer = f"{address[0]}:{address[1]}"
            start_thread(f"from {peer}", self._admit, sock, peer)

    def _pause(self, error: OSError) -> None:
        with self._changed:
            if not self._closed:
                logger.warning("a connection could not be accepted", extra={"why": str(error)})
                self._changed.wait(_PAUSE)

    # A connection's own thread

    def _admit(self, sock: socket.socket, peer: str) -> None:
        try:
            accepted = self._shake_hands(sock, peer)
        finally:
            self._handshakes.release()
        match accepted:
            case PushAccepted(pair, name, source):
                sink = self._meetings.wait_for(pair, self._way.link.timeout)
                if sink is None:
                    self._pairs.forget(pair)
                    source.close()
                    self._leave(1)
                else:
                    who = f"{name} at {peer}" if name else peer
                    self._serve(Lines(f"{next(self._names)} {peer}", who, source, sink))
                    self._leave(2)
            case ReplyAccepted(pair, _, sink):
                self._meetings.bring(pair, sink, self._way.clock())

    def _shake_hands(self, sock: socket.socket, peer: str) -> PushAccepted | ReplyAccepted | None:
        if not self._enter():
            sock.close()
            self._refused(peer, Refusal.FULL, "There are too many connections.")
            return None
        deadline = Deadline.after(self._way.link.timeout, self._way.clock)
        try:
            return accept(sock, self._way.credentials, self._way.link, self._pairs, deadline)
        except HandshakeFailed as error:
            self._leave(1)
            self._refused(peer, error.refusal, str(error))
            return None

    def _serve(self, lines: Lines) -> None:
        inbound = Inbound(lines, self._way)
        with self._changed:
            self._inbound[id(inbound)] = inbound
            if self._closed:
                inbound.cut()
        inbound.run()
        with self._changed:
            del self._inbound[id(inbound)]
            self._changed.notify_all()

    def _enter(self) -> bool:
        with self._changed:
            if self.connections >= MAX_CONNECTIONS:
                return False
            self.connections += 1
            return True

    def _leave(self, count: int) -> None:
        with self._changed:
            self.connections -= count

    def _refused(self, peer: str, refusal: Refusal, why: str) -> None:
        names.RELAY_REFUSED_PEERS.labels(refusal).inc()
        logger.warning("a connection was refused", extra={"peer": peer, "why": why})


class _Meetings:
    """Reply connections on their way to the threads that have the push connections of their pairs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._brought: dict[bytes, tuple[Sink, float]] = {}

    def bring(self, pair: Pair, sink: Sink, now: float) -> None:
        with self._changed:
            self._brought[pair.id] = (sink, now)
            self._changed.notify_all()

    def wait_for(self, pair: Pair, timeout: float) -> Sink | None:
        with self._changed:
            self._changed.wait_for(lambda: pair.id in self._brought, timeout)
            sink, _ = self._brought.pop(pair.id, (None, 0.0))
            return sink

    def forget_before(self, then: float) -> int:
        """Closes those that came before `then` and that nobody has fetched; says how many."""
        with self._changed:
            stranded = [pair for pair, (_, since) in self._brought.items() if since < then]
            for pair in stranded:
                sink, _ = self._brought.pop(pair)
                sink.close()
        return len(stranded)
