"""The relay's settings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from omni_common.settings import ByteSize, CommaList, Duration, ServiceSettings
from omni_relay.wire.credentials import Mode


class RelaySettings(ServiceSettings):
    """Settings of the relay. Environment: OMNI_RELAY_*."""

    model_config = SettingsConfigDict(env_prefix="OMNI_RELAY_")

    folder: Path = Field(description="What the pod shares: arena, socket, holds. In memory, as emptyDir medium Memory.")
    arena_size: ByteSize = Field(
        default=ByteSize(256 << 20), description="Shared memory, claimed and touched at start."
    )
    extent_size: ByteSize = Field(default=ByteSize(16 << 20), description="The least that a producer is granted of it.")
    inbound: float = Field(default=0.5, ge=0, le=1, description="The part of the arena that other pods may hold.")

    bind: str = Field(default="127.0.0.1:7080", description="host:port for other relays; port 0 takes a free one.")
    advertise: str = Field(
        default="", description="The host under which other pods reach this one; unset: that of bind."
    )
    encryption: Mode = Field(default=Mode.NONE, description="Between relays: none, tls, or aead, the faster one.")
    tls_cert: Path | None = Field(
        default=None, description="PEM file of this relay's certificates; read again on change."
    )
    tls_key: Path | None = Field(default=None, description="PEM file of its key.")
    tls_ca: Path | None = Field(
        default=None, description="PEM file of the CA that other relays' certificates come from."
    )
    tls_peer_names: CommaList = Field(default=(), description="Names that they may have; unset: every one of that CA.")
    token_file: Path | None = Field(default=None, description="What relays prove to each other without certificates.")

    transports: CommaList = Field(default=("auto",), description="The preferred one first: auto (tcp), tcp, ucx, nixl.")
    checksums: bool = Field(default=True, description="Check what other pods send also where it is not authenticated.")
    congestion: str = Field(default="cubic", description="TCP congestion control, where allowed; empty: the host's.")
    heartbeat: Duration = Field(default=timedelta(seconds=1), description="How often a relay says that it lives.")
    peer_timeout: Duration = Field(default=timedelta(seconds=5), description="After so much silence a relay is lost.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.extent_size < 4096:
            raise ValueError("EXTENT_SIZE is below 4KiB: no tensor travels in so little")
        if self.arena_size < 2 * self.extent_size:
            raise ValueError("ARENA_SIZE has no room for two extents of EXTENT_SIZE")
        if self.heartbeat < timedelta(milliseconds=10):
            raise ValueError("HEARTBEAT is below 10ms: relays would do nothing but say that they live")
        if self.heartbeat * 2 > self.peer_timeout:
            raise ValueError("PEER_TIMEOUT is below two times HEARTBEAT: relays that are well would lose each other")
        return self
