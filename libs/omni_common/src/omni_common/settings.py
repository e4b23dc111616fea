"""What every service's settings share: read once from the environment, frozen, and strict about names.

pydantic-settings ignores an unknown variable that has the prefix, so a typo would silently leave a default in place;
here it is refused. (A Kubernetes Service named like the prefix injects such variables: pods set
`enableServiceLinks: false`.)
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, PlainSerializer, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

__all__ = [
    "OTLP_ENDPOINT",
    "ByteSize",
    "CommaList",
    "Duration",
    "ServiceSettings",
    "parse_duration",
    "render_duration",
    "why_refused",
]

OTLP_ENDPOINT = r"^(https?://)?(\[[0-9a-fA-F:]+\]|[^\s:/@\[\]]+):\d{1,5}$"
"""host:port, without TLS, or an http:// or https:// address."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?P<count>\d+(\.\d+)?)(?P<unit>ms|s|m|h)")


def parse_duration(value: object) -> object:
    """`30s`, `500ms`, `1.5m`, `2h`; a timedelta stays one. Raises ValueError for a bare number: of what?"""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration such as 30s, 500ms or 2m")
    return timedelta(seconds=float(match["count"]) * _UNITS[match["unit"]])


def render_duration(value: timedelta) -> str:
    """The inverse, for whoever sets another process's environment."""
    return f"{value // timedelta(milliseconds=1)}ms"


def _split(value: object) -> object:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(render_duration)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def why_refused(settings: type[BaseSettings], error: ValueError) -> str:
    """What is wrong with the environment that the settings were read from, in a sentence for each variable."""
    if not isinstance(error, ValidationError):
        return f"{error}."
    prefix = settings.model_config.get("env_prefix", "")
    return " ".join(_complaint(prefix, one) for one in error.errors(include_url=False))


def _complaint(prefix: str, error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    name = prefix + "_".join(map(str, error["loc"])).upper()
    return f"{name} is refused: {message}." if error["loc"] else f"{prefix}* is refused: {message}."


class ServiceSettings(BaseSettings):
    """The settings of a process; a service adds its own and its prefix."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    log_level: LogLevel = Field(default="INFO", description="The least severe log records that are written.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of /metrics; 0 takes a free one, unset serves none."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of /metrics; 0.0.0.0 in containers.")
    reflection: bool = Field(default=False, description="Serve gRPC reflection, for tools that explore the API.")
    drain: Duration = Field(default=timedelta(seconds=30), description="How long live requests may finish on SIGTERM.")
    health_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of the probes (gRPC) on METRICS_HOST; 0: a free one."
    )
    stay_failed: Duration = Field(
        default=timedelta(seconds=10),
        description="A process that cannot start stays so long at most for a probe to hear why, where it has probes.",
    )
    loop_timeout: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        description="An event loop that has not come round for so long is not alive.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=OTLP_ENDPOINT,
        description="host:port or http(s)://host:port of a collector that takes spans by OTLP over gRPC; unset: none "
        "are made.",
    )
    trace_sampling: float = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The part of requests that is traced, of those whose caller does not say so or no (traceparent).",
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file of this component's certificates; read again on change."
    )
    tls_key: Path | None = Field(default=None, description="PEM file of its key.")
    tls_ca: Path | None = Field(default=None, description="PEM file of the CA that the mesh's certificates come from.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        given = [path is not None for path in (self.tls_cert, self.tls_key, self.tls_ca)]
        if any(given) and not all(given):
            raise ValueError("TLS_CERT, TLS_KEY and TLS_CA belong together: give all three or none")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The constructor's arguments, then the environment; nothing else."""
        if isinstance(env_settings, EnvSettingsSource):
            _refuse_unknown(settings_cls, env_settings)
        return init_settings, env_settings


def _refuse_unknown(settings: type[BaseSettings], environment: EnvSettingsSource) -> None:
    prefix = environment.env_prefix.lower()
    if not prefix:
        raise TypeError(f"{settings.__name__} needs an env_prefix")
    known = {prefix + name.lower() for name in settings.model_fields}
    unknown = sorted(
        name.upper() for name in environment.env_vars if name.lower().startswith(prefix) and name.lower() not in known
    )
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is not a setting of {settings.__name__}; check the spelling")
