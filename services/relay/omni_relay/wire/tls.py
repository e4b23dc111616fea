"""Records inside of TLS, and what a TLS handshake says about the peer. How strict it is stands in certificates.py."""

from __future__ import annotations

import socket
import ssl

from omni_relay.wire import sockets
from omni_relay.wire.record import HEAD_SIZE, KIB, Body, ChannelLost
from omni_relay.wire.refusal import HandshakeFailed, Refusal

_FIRST = 16 * KIB - HEAD_SIZE
"""Of a body, what goes into one TLS record with its head."""


class TlsLine:
    """A line.Line inside of TLS."""

    def __init__(self, tls: ssl.SSLSocket, timeout: float) -> None:
        self._tls = tls
        self._timeout = timeout
        self._lost = False
        tls.settimeout(timeout)  # not the kernel's: OpenSSL would try again for ever after a timeout it cannot see

    def write(self, head: Body, body: Body, *, more: bool = False) -> None:
        if self._lost:
            raise ChannelLost("The connection was lost before.")
        self._lost = True
        view = memoryview(body)
        sockets.write_whole(self._tls.send, memoryview(b"".join((head, view[:_FIRST]))), self._timeout)
        sockets.write_whole(self._tls.send, view[_FIRST:], self._timeout)
        self._lost = False

    def read(self, into: memoryview) -> None:
        sockets.read_whole(self._read, into, self._timeout)

    def _read(self, into: memoryview) -> int:
        return int(self._tls.read(len(into), into))

    def fileno(self) -> int:
        return self._tls.fileno()

    def cut(self) -> None:
        sockets.cut(self._tls)

    def close(self) -> None:
        self._tls.close()


def unwrapped(tls: ssl.SSLSocket) -> socket.socket:
    """The socket, after both ends have said that TLS ends here and authenticated that. Raises OSError.

    What the peer sends next is not swallowed: OpenSSL reads no further than the record it is in.
    """
    tls.unwrap()
    return socket.socket(fileno=tls.detach())


def allowed_name(tls: ssl.SSLSocket, allowed: frozenset[str]) -> str:
    """The peer's name, for logs. Raises HandshakeFailed when names are listed and none of its certificate's is one."""
    certificate = tls.getpeercert() or {}
    names = [str(name) for kind, name in _pairs(certificate.get("subjectAltName")) if kind in ("DNS", "URI")]
    good = [name for name in names if name.lower() in allowed] if allowed else names
    if allowed and not good:
        listed = ", ".join(names) or "none"
        raise HandshakeFailed(Refusal.CERTIFICATE, f"The peer's certificate has no allowed name; it has {listed}.")
    return good[0] if good else "unnamed"


def refused(error: ssl.SSLError) -> HandshakeFailed:
    """What a failed TLS handshake means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeFailed(Refusal.CERTIFICATE, f"The peer's certificate is refused: {error.verify_message}.")
    reason = (error.reason or "").lower().replace("_", " ")
    if "certificate" in reason or "unknown ca" in reason:
        side = "The peer refuses this relay's certificate" if "alert" in reason else "The peer's certificate is refused"
        return HandshakeFailed(Refusal.CERTIFICATE, f"{side}: {reason}.")
    return HandshakeFailed(Refusal.PROTOCOL, f"What the peer sends is not the TLS that was agreed on: {reason}.")


def _pairs(names: object) -> tuple[tuple[str, str], ...]:
    return names if isinstance(names, tuple) else ()
