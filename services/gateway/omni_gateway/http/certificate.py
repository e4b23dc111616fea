"""The certificate that HTTPS is served with. It is tried before it is used, by a handshake with itself in memory: that
finds what a caller would find, such as a key that does not fit or an end that has passed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from omni_common.certificates import expiry_seen, first_certificate
from omni_gateway.watched import Unusable, read


@dataclass(frozen=True, slots=True)
class Certificate:
    """`context` is for new connections; those that are there keep what they began with. `expires` is Unix time."""

    context: ssl.SSLContext
    expires: float


def load_certificate(cert: Path, key: Path) -> Certificate:
    """From PEM files: the certificate with those that lead to its CA, and its key. Raises Unusable."""
    own = first_certificate(read(cert))
    read(key)  # says in its own sentence that it cannot be read
    if not own:
        raise Unusable(f"{cert} holds no certificate in PEM.")
    context = _server(cert, key)
    return Certificate(context, _expiry(context, own, cert))


def _server(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password="")  # of an encrypted key: an error instead of a prompt
    except ssl.SSLError as error:
        reason = (error.reason or "unknown").lower().replace("_", " ")
        raise Unusable(f"{cert} and {key} are no certificate and its key in PEM: {reason}.") from error
    except OSError as error:
        raise Unusable(f"{cert} or {key} cannot be read: {error.strerror}.") from error
    return context


def _expiry(server: ssl.SSLContext, own: str, cert: Path) -> float:
    """As a caller sees it who trusts this very certificate."""
    caller = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    caller.check_hostname = False
    caller.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        caller.load_verify_locations(cadata=own)
        return expiry_seen(caller, server)
    except ssl.SSLError as error:
        raise Unusable(f"Callers would refuse {cert}: {error.reason}.") from error
    except ValueError as error:
        raise Unusable(f"Callers would refuse {cert}: {error}.") from error
