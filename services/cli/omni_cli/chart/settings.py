"""The services' settings as the chart's values have them: in camel case, without those that the chart itself sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ByteSize

from omni_common.settings import ServiceSettings
from omni_coordinator.settings import CoordinatorSettings
from omni_gateway.settings import GatewaySettings
from omni_relay.settings import RelaySettings
from omni_stage.settings import StageSettings

SERVICES: Mapping[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "coordinator": CoordinatorSettings,
    "stage": StageSettings,
    "relay": RelaySettings,
}

_EVERYWHERE = frozenset(
    ("bind", "drain", "log_level", "metrics_port", "metrics_host", "health_port", "otlp_endpoint", "trace_sampling")
) | frozenset(("tls_cert", "tls_key", "tls_ca"))
_OF_A_POD = frozenset(("family", "pipeline", "stage", "replica", "pod", "node", "advertise", "coordinators", "arena"))
_OF_AN_ARENA = frozenset(("folder", "arena_size", "advertise", "encryption", "tls_peer_names", "token_file"))
OWNED: Mapping[str, frozenset[str]] = {
    "gateway": _EVERYWHERE | {"coordinators", "request_timeout", "https_cert", "https_key", "api_keys"},
    "coordinator": _EVERYWHERE | {"pipelines", "default_deadline"},
    "stage": _EVERYWHERE | _OF_A_POD | {"model", "device", "dtype", "threads", "stay_failed"},
    "relay": _EVERYWHERE | _OF_AN_ARENA | {"transports"},
}
"""What the chart sets, or has a value of its own for."""


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def settings_schema(service: str) -> Mapping[str, object]:
    """What `settings` of this service may hold."""
    model = SERVICES[service]
    described = model.model_json_schema()
    properties = {
        camel(name): {
            "description": info.description,
            **_type(info.annotation, described["properties"][name], described),
        }
        for name, info in sorted(model.model_fields.items())
        if name not in OWNED[service]
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _type(annotation: object, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, object]:
    if annotation is ByteSize:
        return {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(B|[KMGT]i?B)?$", "minimum": 0}
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    one = options[0]
    if "$ref" in one:
        one = root["$defs"][one["$ref"].rpartition("/")[2]]
    if one.get("format") == "duration":
        return {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"}
    kept = (
        "type",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "items",
        "minItems",
        "pattern",
    )
    return {key: one[key] for key in kept if key in one}
