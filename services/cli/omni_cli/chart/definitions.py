"""Parts of values.schema.json that no default of a value says: what Kubernetes or the pipelines declare."""

from __future__ import annotations

from collections.abc import Mapping

from omni_cli.chart.settings import camel
from omni_common.pipeline import PipelineConfig, StageConfig

_NAME = r"^[a-z][a-z0-9_-]*$"

QUANTITIES: Mapping[str, object] = {
    "quantity": {
        "type": ["string", "number"],
        "minimum": 0,
        "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
    },
    # Whole numbers: the relay's has the arena added to it.
    "memory": {"type": ["string", "integer"], "minimum": 1, "pattern": r"^[1-9][0-9]*(k|M|G|T|Ki|Mi|Gi|Ti)?$"},
    "resourceList": {
        "type": "object",
        "properties": {"memory": {"$ref": "#/definitions/memory"}},
        "additionalProperties": {"$ref": "#/definitions/quantity"},
    },
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "requests": {"$ref": "#/definitions/resourceList"},
            "limits": {"$ref": "#/definitions/resourceList"},
        },
    },
}

LISTS: Mapping[str, object] = {
    "env": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$"},
                "value": {"type": "string"},
                "valueFrom": {"type": "object"},
            },
        },
    },
    "volumeMounts": {
        "type": "array",
        "items": {"type": "object", "required": ["name", "mountPath"]},
    },
    "peers": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "namespaceSelector": {"type": "object"},
                "podSelector": {"type": "object"},
                "ipBlock": {"type": "object", "required": ["cidr"]},
            },
        },
    },
    "apiKey": {
        "type": ["object", "null"],
        "required": ["sha256"],
        "additionalProperties": False,
        "properties": {
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the key, in hex."},
            "requestsPerMinute": {"type": "integer", "minimum": 1, "description": "Requests a minute at most."},
            "concurrentRequests": {"type": "integer", "minimum": 1, "description": "Requests at once at most."},
        },
    },
}

# Fields of a stage's description that the values may change; its edges are the model's own.
_STAGE_FIELDS = (
    "placement_group",
    "process",
    "gpu",
    "tp_size",
    "max_running",
    "max_waiting",
    "max_batch_wait_ms",
    "credits",
)


def stage_properties() -> Mapping[str, object]:
    """Values of a stage that are its description's."""
    described = StageConfig.model_json_schema()["properties"]
    fields = {camel(name): _plain(described[name]) for name in _STAGE_FIELDS}
    return {**fields, "placementGroup": {**fields["placementGroup"], "pattern": r"^([a-z][a-z0-9_-]*)?$"}}


def graph() -> Mapping[str, object]:
    """A pipeline's description, and what it is made of. Its name is that of its entry in the values."""
    schema = PipelineConfig.model_json_schema(ref_template="#/definitions/{model}")
    parts = schema.pop("$defs")
    required = [name for name in schema["required"] if name != "name"]
    return {"graph": {**schema, "required": required}, **parts}


def pipeline() -> Mapping[str, object]:
    """A pipeline's values."""
    told = PipelineConfig.model_json_schema()["properties"]
    lists = {camel(name): _plain(told[name]) for name in ("voices", "default_voice", "languages")}
    lists["voices"]["items"] = {"type": "string", "minLength": 1}
    lists["languages"]["items"] = {"type": "string", "pattern": "^[a-z]{2}$"}
    lists["voices"]["description"] = "Names of its voices; unset, what the packaged weights have, or the model's own."
    lists["defaultVoice"]["description"] = "One of them."
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "enabled": {
                "type": "boolean",
                "description": "Serve it. Unset, an entry of yours is served; the chart's own entries say it, and only "
                "qwen3-omni is on.",
            },
            "family": {"type": "string", "description": "Whose code runs."},
            "graph": {
                "description": "A pipeline's description in place of the family's; empty: none.",
                "type": "object",
                "if": {"minProperties": 1},
                "then": {"$ref": "#/definitions/graph"},
            },
            "image": {
                "description": "As `stage.image`, for this one.",
                "$ref": "#/definitions/stageImage",
            },
            "weights": {
                "description": "As `weightsDefaults`, for this one.",
                "$ref": "#/definitions/weights",
            },
            **lists,
            "tasks": {"type": "array", "items": {"$ref": "#/definitions/Task"}, "description": "What it does."},
            "stages": {
                "type": "object",
                "description": "Its stages, by name; values of containers.",
                "additionalProperties": {"$ref": "#/definitions/stage"},
            },
            "placementGroups": {
                "type": "object",
                "description": "Its placement groups, by name; values of pods.",
                "propertyNames": {"pattern": _NAME},
                "additionalProperties": {"$ref": "#/definitions/placementGroup"},
            },
        },
    }


def _plain(schema: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in schema.items() if key not in ("default", "title", "$ref")}
