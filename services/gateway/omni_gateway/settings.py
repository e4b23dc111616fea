"""Settings of the gateway."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from omni_common.settings import ByteSize, CommaList, Duration, ServiceSettings


class GatewaySettings(ServiceSettings):
    """Settings of the gateway. Environment: OMNI_GATEWAY_*."""

    model_config = SettingsConfigDict(env_prefix="OMNI_GATEWAY_", frozen=True, extra="forbid")

    bind: str = Field(
        default="127.0.0.1:8000", pattern=r"^(\[[^\]]+\]|[^:\[\]]+):\d{1,5}$", description="Where HTTP is served."
    )
    coordinators: CommaList = Field(min_length=1, description="host:port of the coordinators, separated by commas.")
    https_cert: Path | None = Field(
        default=None, description="PEM file of the certificate for HTTPS, with its chain; read again on change."
    )
    https_key: Path | None = Field(default=None, description="PEM file of its key.")
    api_keys: Path | None = Field(
        default=None,
        description="JSON file of the keys that callers need, read again on change; unset: none.",
    )

    max_body: ByteSize = Field(default=ByteSize(32 << 20), gt=0, description="Bytes of one request's body at most.")
    max_buffered_bodies: ByteSize = Field(
        default=ByteSize(512 << 20), gt=0, description="Bytes of all bodies that are being read; above it, 429."
    )
    max_buffered_replies: ByteSize = Field(
        default=ByteSize(512 << 20),
        gt=0,
        description="Bytes of speech that is answered whole, of all callers; above it, 429.",
    )
    max_live_requests: PositiveInt = Field(default=512, description="Generations under way at once; above it, 429.")
    output_credits: PositiveInt = Field(
        default=16, description="Outputs of one kind that may be under way to one caller: its buffer in this process."
    )

    head_timeout: Duration = Field(default=timedelta(seconds=10), description="How long a request's head may take.")
    body_timeout: Duration = Field(default=timedelta(seconds=60), description="How long a request's body may take.")
    request_timeout: Duration = Field(default=timedelta(minutes=10), description="How long a request may take.")
    stall_timeout: Duration = Field(
        default=timedelta(seconds=30), description="A caller that reads nothing for so long is cut off."
    )
    ping_interval: Duration = Field(
        default=timedelta(seconds=15), description="Silence in a stream after which a comment keeps it alive."
    )
    audio_lifetime: Duration = Field(
        default=timedelta(hours=1), description="How long an answer's audio id can be replayed."
    )
    encoder_threads: PositiveInt = Field(default=2, description="Threads that encode speech.")

    @model_validator(mode="after")
    def _https_is_whole(self) -> Self:
        if (self.https_cert is None) != (self.https_key is None):
            raise ValueError("HTTPS_CERT and HTTPS_KEY belong together: give both or none")
        return self

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)
