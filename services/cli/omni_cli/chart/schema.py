"""values.schema.json: from the defaults of values.yaml, its comments, and the services' settings. A block of ours takes
no name that it does not know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from omni_cli.chart.comments import Value
from omni_cli.chart.definitions import LISTS, QUANTITIES, graph, pipeline, stage_properties
from omni_cli.chart.formats import FORMATS
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
    properties = _properties(values, whole=True)
    for component in ("gateway", "coordinator", "groupDefaults"):
        own = values[component].children
        properties[component] = _closed(_over(pod, _properties(own, whole=True)), _needed(own))
    properties["pipelines"]["propertyNames"] = {"pattern": r"^[a-z0-9][a-z0-9.-]*$"}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart omni",
        **_closed(properties, _needed(values)),
        "definitions": {
            **FORMATS,
            **QUANTITIES,
            **LISTS,
            **{f"{service}Settings": settings_schema(service) for service in SERVICES},
            "weights": _closed(blocks["weightsDefaults"]),
            "stageImage": blocks["stage"]["image"],
            "stage": _nullable(_closed({**blocks["stageDefaults"], **stage_properties()})),
            "placementGroup": _nullable(_closed(_over(pod, blocks["groupDefaults"]))),
            **graph(),
            "pipeline": pipeline(),
        },
    }
    return json.dumps(_inclusive(schema), indent=2, ensure_ascii=False) + "\n"


def _closed(properties: Mapping[str, object], required: Iterable[str] = ()) -> dict[str, object]:
    needed = {"required": sorted(required)} if required else {}
    return {"type": "object", "additionalProperties": False, **needed, "properties": properties}


def _over(pod: Mapping[str, dict[str, object]], block: Mapping[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """A block that also takes a pod's values: one that it has under the same name has the pod's bounds."""
    return {**pod, **{name: {**pod.get(name, {}), **schema} for name, schema in block.items()}}


def _needed(values: Mapping[str, Value]) -> list[str]:
    """What templates cannot do without: Helm takes a value away that is set to null. A text, a list or a map that is
    empty by default may be missing as well."""
    return [
        name
        for name, value in values.items()
        if value.children or value.default or isinstance(value.default, int | float)
    ]


def _properties(values: Mapping[str, Value], *, whole: bool = False) -> dict[str, dict[str, object]]:
    """`whole`: Helm has put the defaults beside what the user gave."""
    return {name: _schema(value, whole=whole) for name, value in values.items()}


def _schema(value: Value, *, whole: bool) -> dict[str, object]:
    if value.children:
        return _closed(_properties(value.children, whole=whole), _needed(value.children) if whole else ())
    own = {key: one for key, one in value.schema.items() if key != "x-any"}
    if "$ref" in own:
        # Beside a reference nothing else is read, but by people.
        return {"description": value.description, **own}
    return {"description": value.description, **_inferred(value), **own}


def _inferred(value: Value) -> dict[str, object]:
    """A type, and for a list without more words that its items are texts."""
    return {"type": _TYPES[type(value.default)]} if value.default is not None else {}


def _nullable(schema: Mapping[str, object]) -> dict[str, object]:
    """Null takes a value back that a file before has set."""
    return {**schema, "type": [schema["type"], "null"]}


def _inclusive(schema: object) -> object:
    """Whole numbers above 0 are 1 or more: "got 0, want 0" says nothing to anybody."""
    if isinstance(schema, list):
        return [_inclusive(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    told = {key: _inclusive(one) for key, one in schema.items()}
    if told.get("type") == "integer" and isinstance(least := told.get("exclusiveMinimum"), int):
        told["minimum"] = least + 1
        del told["exclusiveMinimum"]
    return told
