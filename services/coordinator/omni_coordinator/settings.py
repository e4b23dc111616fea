"""The coordinator's settings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import SettingsConfigDict

from omni_common.settings import ByteSize, CommaList, Duration, ServiceSettings


class CoordinatorSettings(ServiceSettings):
    """Settings of the coordinator. Environment: OMNI_COORDINATOR_*."""

    model_config = SettingsConfigDict(env_prefix="OMNI_COORDINATOR_")

    bind: str = Field(default="127.0.0.1:7070", description="host:port of its gRPC server; port 0 takes a free one.")
    pipelines: CommaList = Field(min_length=1, description="The pipeline files (JSON) to serve, separated by commas.")
    max_live_requests: PositiveInt = Field(default=256, description="Above it, requests are refused as OVERLOADED.")
    max_media: ByteSize = Field(
        default=ByteSize(512 << 20), description="Media on their way to a stage; above it, requests are OVERLOADED."
    )
    default_deadline: Duration = Field(
        default=timedelta(minutes=10), description="How long a request may take whose caller does not say."
    )
    abort_timeout: Duration = Field(
        default=timedelta(seconds=2), description="How long a failed request's place waits for its replicas' answers."
    )
    max_attempts: PositiveInt = Field(
        default=3, description="How often a request may begin whose replicas get lost; 1 never begins one again."
    )
    hello_timeout: Duration = Field(default=timedelta(seconds=10), description="How long a peer may take to say hello.")

    @property
    def pipeline_files(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.pipelines))
