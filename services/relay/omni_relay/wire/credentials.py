"""Who may connect, and how connections are protected. Frozen: what may change is in the files it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


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
    """What this relay has and asks for. `token` b"" means that none is asked for."""

    mode: Mode = Mode.NONE
    token: bytes = field(default=b"", repr=False)
