"""The sockets under the channels: their options, and whole reads and writes on them.

They block, so that one system call moves a whole piece and the interpreter's lock is free meanwhile. The kernel itself
bounds each call (SO_RCVTIMEO, SO_SNDTIMEO) and notices a peer that acknowledges nothing (TCP_USER_TIMEOUT).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from time import monotonic

from omni_relay.wire.record import ChannelLost

PATIENCE = 12
"""How many times its timeout one read or write may take whose bytes trickle: a limit that only a peer meets which
means to hold a thread, or a line so slow that no deadline would be kept on it."""

MOMENT = 0.001
"""Seconds: the least timeout of a call whose deadline is as good as over; 0 would mean not to block at all."""

_TIMEVAL = Struct("@ll")


@dataclass(frozen=True, slots=True)
class Link:
    """How connections are set up. `timeout` in seconds: a peer that is silent or takes nothing for so long is lost.

    `congestion` is the congestion control that is asked for ("" leaves the host's; a name that the host does not
    allow is passed over). `buffers` in bytes, 0 leaves them to the kernel, which grows them as needed. `checksums`
    says whether pieces carry them on channels that do not authenticate their bytes anyway.
    """

    timeout: float = 5.0
    congestion: str = "cubic"
    buffers: int = 0
    checksums: bool = True


def tune(sock: socket.socket, link: Link) -> None:
    """Sets what holds for the whole life of a connection. Options that this host lacks are passed over."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(link.timeout * 1000))
    if link.congestion and hasattr(socket, "TCP_CONGESTION"):
        with contextlib.suppress(OSError):  # not allowed or not there: the host's own is as right
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, link.congestion.encode())
    if link.buffers:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, link.buffers)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, link.buffers)


def block(sock: socket.socket, timeout: float) -> None:
    """From now on calls block in the kernel, for `timeout` seconds at most."""
    sock.settimeout(None)
    limit = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def cut(sock: socket.socket) -> None:
    """Ends the connection in both directions; whoever waits in it wakes. The descriptor stays."""
    with contextlib.suppress(OSError):  # the peer was faster
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not a TLS socket's own, which would go on in clear text


def read_whole(receive: Callable[[memoryview], int], into: memoryview, timeout: float) -> None:
    """Fills `into`, which is not empty, by as many calls as it takes: one, unless the line is slow.

    Raises ChannelLost when the peer closes, or sends nothing for `timeout`, or too little for much longer.
    """
    read_some(receive, into, len(into), timeout)


def read_some(receive: Callable[[memoryview], int], into: memoryview, least: int, timeout: float) -> int:
    """As `read_whole`, and is content with the first `least` bytes of `into`. Says how many it has read."""
    until = 0.0
    got = 0
    try:
        while more := receive(into[got:]):
            got += more
            if got >= least:
                return got
            until = until or monotonic() + PATIENCE * timeout
            if monotonic() > until:
                raise ChannelLost("The peer sends too slowly for a record to end.")
    except OSError as error:
        raise lost(error, f"sent nothing for {timeout:g} s") from error
    raise ChannelLost("The peer closed the connection.")


def write_whole(send: Callable[[memoryview], int], data: memoryview, timeout: float) -> None:
    """Sends all of `data`. Raises ChannelLost when the peer takes nothing for `timeout`, or too little for longer."""
    until = monotonic() + PATIENCE * timeout
    try:
        while data:
            data = data[send(data) :]
            if monotonic() > until:
                raise ChannelLost("The peer takes too slowly for a record to end.")
    except OSError as error:
        raise lost(error, f"took nothing for {timeout:g} s") from error


def lost(error: OSError, idle: str) -> ChannelLost:
    if isinstance(error, BlockingIOError | TimeoutError):
        return ChannelLost(f"The peer {idle}.")
    return ChannelLost(f"The connection broke: {error.strerror or error}.")
