"""Who may connect, and how connections are protected. Frozen: what may change is in the files it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from omni_common.certificates import Certificates
from omni_common.lifecycle import CannotStart

LEAST_TOKEN = 24
"""Bytes: below, whoever taps one handshake could guess the token."""


class Mode(StrEnum):
    """How records are protected. Both ends have the same one; nothing is negotiated, so nothing can be talked down."""

    NONE = "none"
    TLS = "tls"
    AEAD = "aead"

    @property
    def number(self) -> int:
        """As the preamble carries it."""
        return list(Mode).index(self)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What this relay has and asks for. `token` b"" asks for none; `certificates` are there unless the mode is none;
    `peer_names` () allows every name that the CA signed for."""

    mode: Mode = Mode.NONE
    token: bytes = field(default=b"", repr=False)
    certificates: Certificates | None = None
    peer_names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if (self.mode is Mode.NONE) != (self.certificates is None):
            raise ValueError("certificates belong to every mode but none")

    @property
    def open_to_all(self) -> bool:
        """Whether anybody who reaches the port may push: bearable on a loopback address only."""
        return self.mode is Mode.NONE and not self.token


def load_credentials(
    mode: Mode,
    *,
    token_file: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    ca: Path | None = None,
    peer_names: tuple[str, ...] = (),
) -> Credentials:
    """Reads and tries what the settings name. Raises CannotStart with a sentence for whoever set it up."""
    token = _read_token(token_file) if token_file else b""
    names = frozenset(name.lower() for name in peer_names)
    if mode is Mode.NONE:
        if cert or key or ca or names:
            raise CannotStart("There are settings for TLS, but ENCRYPTION is 'none'; drop them, or say 'aead'.")
        return Credentials(mode, token)
    if not (cert and key and ca):
        raise CannotStart(f"ENCRYPTION '{mode}' needs TLS_CERT, TLS_KEY and TLS_CA.")
    certificates = Certificates(cert, key, ca)
    try:
        certificates.current()
    except (OSError, ValueError) as error:
        raise CannotStart(f"The certificate, key or CA of this relay cannot be used: {error}.") from error
    certificates.tell_expiry()
    return Credentials(mode, token, certificates, names)


def _read_token(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise CannotStart(f"The token in {path} cannot be read: {error.strerror}.") from error
    if len(token) < LEAST_TOKEN:
        raise CannotStart(f"The token in {path} has {len(token)} characters; below {LEAST_TOKEN} it could be guessed.")
    return token
