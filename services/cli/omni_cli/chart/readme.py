"""The tables of the chart's README."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from omni_cli.chart.comments import Value, leaves
from omni_cli.chart.definitions import pipeline, stage_properties
from omni_cli.chart.settings import SERVICES, settings_schema

_WIDEST = 60
"""Characters of a default; longer ones are read in values.yaml."""


def values_table(values: Mapping[str, Value]) -> str:
    rows = [(f"`{path}`", _default(value.default), value.description) for path, value in leaves(values)]
    pipelines = [(f"`pipelines.NAME.{name}`", "–", _described(schema)) for name, schema in _own(pipeline()).items()]
    stages = [
        (f"`pipelines.NAME.stages.STAGE.{name}`", "the model's own", _described(schema))
        for name, schema in stage_properties().items()
    ]
    return _table(("value", "default", "is"), [*rows, *pipelines, *stages])


def settings_table() -> str:
    rows = [
        (f"`{service}`", f"`{name}`", _described(schema))
        for service in SERVICES
        for name, schema in _own(settings_schema(service)).items()
    ]
    return _table(("service", "setting", "is"), rows)


def _own(schema: Mapping[str, object]) -> Mapping[str, Any]:
    properties = schema["properties"]
    return properties if isinstance(properties, Mapping) else {}


_UNDESCRIBED = "as the stage's description has it"


def _described(schema: object) -> str:
    return str(schema.get("description") or _UNDESCRIBED) if isinstance(schema, Mapping) else _UNDESCRIBED


def _default(default: object) -> str:
    if default in ("", None):
        return "–"
    text = default if isinstance(default, str) else json.dumps(default)
    return f"`{text}`" if len(text) <= _WIDEST else "see values.yaml"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
