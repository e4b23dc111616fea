"""This process's certificate, key and CA: read again when the files change, so that new connections use the new ones.

Connections have TLS with a certificate of the mesh's CA from both ends. Host names are not compared, since peers are
dialled by the addresses of pods, which no certificate knows; instead the names in the certificates say what a peer is,
and the CA must sign for nobody outside the mesh.

What is read is tried before it is used, by a TLS handshake with itself in memory. That finds just what a peer would
find: an expired certificate, one of another CA, a key that does not fit, a use that is not allowed. New files that do
not stand the trial (or are half written) leave the old ones in use, with one line in the log, and are tried again: of a
clock that is ahead, they become valid.

The contexts are for the relay's sockets: TLS 1.3 only and no session tickets, so that nothing is resumed and every
connection checks the certificates of its day. gRPC brings its own TLS and takes the PEM text.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni_common.clock import Clock, monotonic
from omni_common.telemetry import names

logger = logging.getLogger(__name__)

_FLIGHTS = 4
"""Messages that a TLS 1.3 handshake takes, with one to spare."""

_READINGS = 3
"""How often files are read that change while they are being read."""

_AGAIN = 10.0
"""Seconds after which files that could not be used are tried again, if anybody asks."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pem:
    """What is in the files."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """The files as they were at one moment. `fingerprint` is the SHA-256 of this process's own certificate, and in Unix
    time it `expires`, or its CA."""

    client: ssl.SSLContext
    server: ssl.SSLContext
    fingerprint: bytes
    expires: float
    pem: Pem


class Certificates:
    """The files, and what was last read from them. Any thread."""

    def __init__(self, cert: Path, key: Path, ca: Path, clock: Clock = monotonic) -> None:
        self._files = (cert, key, ca)
        self._clock = clock
        self._seen: object = None
        self._again = math.inf
        self._why = ""
        self._loaded: Loaded | None = None
        self._lock = threading.Lock()

    def current(self) -> Loaded:
        """For a new connection. Raises OSError or ValueError, as `load`, only if nothing good was ever read."""
        with self._lock:
            seen = self._look()
            if self._loaded is None or seen != self._seen or self._clock() >= self._again:
                if seen != self._seen:
                    self._why = ""
                self._loaded = self._reload()
                self._seen = seen
            return self._loaded

    def tell_expiry(self) -> None:
        """From now on /metrics says when the certificate in use expires. Who asks has the files looked at, so that a
        process whose connections last for weeks shows the certificate that its next one will have."""
        names.CERTIFICATE_EXPIRY.labels("mesh").set_function(lambda: self.current().expires)

    def _look(self) -> object:
        with contextlib.suppress(OSError):
            return tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in map(Path.stat, self._files))
        return None

    def _reload(self) -> Loaded:
        try:
            loaded = load(*self._files)
        except (OSError, ValueError) as error:
            if self._loaded is None:
                raise
            if str(error) != self._why:
                logger.warning("new certificates cannot be used; the old ones stay", extra={"why": str(error)})
            self._why, self._again = str(error), self._clock() + _AGAIN
            return self._loaded
        self._why, self._again = "", math.inf
        return loaded


def load(cert: Path, key: Path, ca: Path) -> Loaded:
    """Raises OSError or ValueError, whose message says what is wrong with which file."""
    for _ in range(_READINGS):
        before = _read(cert, key, ca)
        try:
            client = make_context(ssl.PROTOCOL_TLS_CLIENT, cert, key, ca)
            server = make_context(ssl.PROTOCOL_TLS_SERVER, cert, key, ca)
            own = ssl.PEM_cert_to_DER_cert(first_certificate(before.cert))
        except ssl.SSLError as error:
            raise ValueError(f"{cert}, {key} or {ca} is no PEM, or the key is another's ({error.reason})") from error
        if _read(cert, key, ca) == before:  # else the contexts may have others than the text
            return Loaded(client, server, fingerprint(own), _try(client, server, cert), before)
    raise ValueError(f"{cert}, {key} or {ca} changed again and again while they were read")


def _read(cert: Path, key: Path, ca: Path) -> Pem:
    read: list[bytes] = []
    for path in (cert, key, ca):
        try:
            read.append(path.read_bytes())
        except OSError as error:
            raise OSError(f"{path} cannot be read ({error.strerror})") from error
    return Pem(*read)


def first_certificate(pem: bytes) -> str:
    """The process's own, or nothing; those that lead to the CA follow it."""
    found = _CERTIFICATE.search(pem.decode("ascii", "replace"))
    return "" if found is None else found[0]


def make_context(purpose: int, cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """`purpose` is ssl.PROTOCOL_TLS_SERVER or PROTOCOL_TLS_CLIENT. Raises OSError, of which SSLError is a kind."""
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.load_cert_chain(cert, key, password="")  # of an encrypted key: an error instead of a prompt
    context.load_verify_locations(ca)
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def fingerprint(certificate: bytes) -> bytes:
    """Of a certificate in DER."""
    return hashlib.sha256(certificate).digest()


def _try(client: ssl.SSLContext, server: ssl.SSLContext, cert: Path) -> float:
    """When the certificate expires."""
    try:
        return expiry_seen(client, server)
    except ValueError as error:
        raise ValueError(f"peers would refuse {cert}: {error}") from error


def expiry_seen(client: ssl.SSLContext, server: ssl.SSLContext) -> float:
    """When the server's certificate expires, or the CA that the client trusts for it if that is sooner, in Unix time,
    as a handshake in memory shows it to the client. Raises ValueError that says why one of them refuses the other."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    try:
        for _ in range(_FLIGHTS):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise ValueError(error.verify_message) from error
    except ssl.SSLError as error:
        raise ValueError(error.reason) from error
    seen = ends[0].getpeercert() or {}
    # Of several of one name, as while one takes the place of another, the last to end: then there is one still.
    issuers = [_end(ca) for ca in client.get_ca_certs() if ca["subject"] == seen["issuer"]]
    return min(_end(seen), max(issuers, default=math.inf))


def _end(certificate: Mapping[str, Any]) -> float:
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
