"""Why a connection inside the mesh was refused: what gRPC says about a call that never got through, read. Pure."""

from __future__ import annotations

from enum import StrEnum


class TlsRefusal(StrEnum):
    """The `reason` label of omni_tls_refusals_total."""

    EXPIRED = "expired"
    EARLY = "early"
    FOREIGN = "foreign"
    NAME = "name"
    PLAINTEXT = "plaintext"
    CLOSED = "closed"
    HANDSHAKE = "handshake"
    ROLE = "role"
    RESUMED = "resumed"
    UNPROVEN = "unproven"


SENTENCES = {
    TlsRefusal.EXPIRED: "The peer's certificate has expired.",
    TlsRefusal.EARLY: "The peer's certificate is not valid yet.",
    TlsRefusal.FOREIGN: "The peer's certificate comes from no CA that TLS_CA names.",
    TlsRefusal.NAME: "The peer's certificate has another component's name than the one that was dialled.",
    TlsRefusal.PLAINTEXT: "The peer speaks no TLS.",
    TlsRefusal.CLOSED: "The peer ended the connection before any call; it may refuse this process's certificate.",
    TlsRefusal.HANDSHAKE: "The TLS handshake with the peer failed.",
    TlsRefusal.ROLE: "A component asked for what only others may ask for.",
    TlsRefusal.RESUMED: "A peer took up an earlier TLS session, in which its certificate of today is not looked at.",
    TlsRefusal.UNPROVEN: "Connections came that made no call: their certificates were refused, or they had none.",
}

# Ordered: the first that is in the text says most.
_SIGNS = {
    "certificate has expired": TlsRefusal.EXPIRED,
    "certificate is not yet valid": TlsRefusal.EARLY,
    "local issuer certificate": TlsRefusal.FOREIGN,
    "self signed": TlsRefusal.FOREIGN,
    "self-signed": TlsRefusal.FOREIGN,
    "certificate signature failure": TlsRefusal.FOREIGN,
    "Hostname Verification": TlsRefusal.NAME,
    "No match found for server name": TlsRefusal.NAME,
    "WRONG_VERSION_NUMBER": TlsRefusal.PLAINTEXT,
    "ALERT_": TlsRefusal.CLOSED,
    "handshake failed": TlsRefusal.HANDSHAKE,
    "Secure read failed": TlsRefusal.CLOSED,
    "Socket closed": TlsRefusal.CLOSED,
}


def read_refusal(details: str) -> TlsRefusal | None:
    """From the details of a call's status, over TLS; None where it says something else, such as that nobody listens.

    A client of TLS 1.3 has done its part of the handshake when the server looks at its certificate, so of the server's
    refusal it sees no more than the end of the connection.
    """
    if "failed to connect" not in details:
        return None
    return next((refusal for sign, refusal in _SIGNS.items() if sign in details), None)
