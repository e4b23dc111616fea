"""values.schema.json: from the defaults of values.yaml, its comments, and the services' settings. A block of ours takes
no name that it does not know."""

from __future__ import annotations

import json
from collections.abc import Mapping

from omni_cli.chart.comments import Value
from omni_cli.chart.definitions import LISTS, QUANTITIES, graph, pipeline, stage_properties
from omni_cli.chart.settings import SERVICES, settings_schema

_TYPES: Mapping[type, str] = {
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}


def schema_file(values: Mapping[str, Value]) -> str:
    """The schema as JSON."""
    blocks = {name: _properties(value.children) for name, value in values.items() if value.children}
    pod = {**blocks["podDefaults"], "replicas": _nullable(blocks["podDefaults"]["replicas"])}
    properties = {name: _schema(value) for name, value in values.items()}
    for component in ("gateway", "coordinator", "groupDefaults"):
        properties[component] = _closed({**pod, **blocks[component]})
    properties["pipelines"]["propertyNames"] = {"pattern": r"^[a-z0-9][a-z0-9.-]*$"}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart omni",
        **_closed(properties),
        "definitions": {
            **QUANTITIES,
            **LISTS,
            **{f"{service}Settings": settings_schema(service) for service in SERVICES},
            "weights": _closed(blocks["weightsDefaults"]),
            "stageImage": blocks["stage"]["image"],
            "stage": _closed({**blocks["stageDefaults"], **stage_properties()}),
            "placementGroup": _closed({**pod, **blocks["groupDefaults"]}),
            **graph(),
            "pipeline": pipeline(),
        },
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _closed(properties: Mapping[str, object]) -> dict[str, object]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _properties(values: Mapping[str, Value]) -> dict[str, dict[str, object]]:
    return {name: _schema(value) for name, value in values.items()}


def _schema(value: Value) -> dict[str, object]:
    if value.children:
        return _closed(_properties(value.children))
    own = {key: one for key, one in value.schema.items() if key != "x-any"}
    if "$ref" in own:
        # Beside a reference nothing else is read.
        return {"description": value.description, "allOf": [own]}
    return {"description": value.description, **_inferred(value), **own}


def _inferred(value: Value) -> dict[str, object]:
    """A type, and for a list without more words that its items are texts."""
    return {"type": _TYPES[type(value.default)]} if value.default is not None else {}


def _nullable(schema: Mapping[str, object]) -> dict[str, object]:
    """Null takes a value back that a file before has set."""
    return {**schema, "type": [schema["type"], "null"]}
