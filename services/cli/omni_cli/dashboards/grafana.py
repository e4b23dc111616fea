"""Boards as Grafana reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omni_cli.dashboards.panels import Board, Kind, Panel, Query

Json = Mapping[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
HEIGHTS = {Kind.NUMBER: 4}
HEIGHT = 8


def render(board: Board) -> str:
    """The dashboard's JSON, the same for the same board."""
    return json.dumps(_board(board), indent=2, ensure_ascii=False) + "\n"


def _board(board: Board) -> Json:
    return {
        "uid": board.name,
        "title": board.title,
        "description": board.says,
        "tags": ["omni"],
        "editable": True,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "links": [_link()],
        "templating": {"list": [_source(), *_choices()]},
        "panels": list(_panels(board)),
    }


def _link() -> Json:
    return {"type": "dashboards", "title": "omni", "tags": ["omni"], "asDropdown": True, "keepTime": True}


def _source() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}


def _choices() -> Iterator[Json]:
    for name, query in (
        ("namespace", "label_values(omni_build_info, namespace)"),
        ("pipeline", 'label_values(omni_ready_replicas{namespace=~"$namespace"}, pipeline)'),
    ):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels(board: Board) -> Iterator[Json]:
    number, y = 0, 0
    for row in board.rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        x, y, line = 0, y + 1, 0
        for panel in row.panels:
            height = HEIGHTS.get(panel.kind, HEIGHT)
            if x + panel.width > COLUMNS:
                x, y, line = 0, y + line, 0
            number += 1
            yield _panel(number, panel, {"h": height, "w": panel.width, "x": x, "y": y})
            x, line = x + panel.width, max(line, height)
        y += line


def _panel(number: int, panel: Panel, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [_target(i, query, panel.kind) for i, query in enumerate(panel.queries)],
    }


def _target(index: int, query: Query, kind: Kind) -> Json:
    at_once = {"instant": True, "format": "table"} if kind is Kind.TABLE else {"range": True}
    return {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "exemplar": kind is Kind.LINES and "_bucket" in query.expression,
        **at_once,
    }


def _field(panel: Panel) -> Json:
    field: dict[str, Any] = {"unit": panel.unit, "min": 0, "noValue": "no data", "mappings": [_NO_TRAFFIC]}
    if panel.most is not None:
        field["max"] = panel.most
    if panel.alarm is not None:
        field["thresholds"] = {"mode": "absolute", "steps": _steps(panel.alarm, less_is_worse=panel.less_is_worse)}
    if panel.kind is Kind.LINES:
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        fill = 30 if panel.stacked else 8
        field["custom"] = {"lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "stacking": stacking}
    return field


def _steps(alarm: float, *, less_is_worse: bool) -> Sequence[Json]:
    below, above = ("red", "green") if less_is_worse else ("green", "red")
    return [{"color": below, "value": None}, {"color": above, "value": alarm}]


# What a ratio of nothing by nothing is.
_NO_TRAFFIC = {"type": "special", "options": {"match": "nan", "result": {"text": "no traffic", "index": 0}}}

_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Mapping[Kind, Json] = {
    Kind.LINES: {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    Kind.NUMBER: {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "area", "textMode": "auto"},
    Kind.BARS: {"reduceOptions": _LAST, "orientation": "horizontal", "displayMode": "gradient", "showUnfilled": True},
    Kind.TABLE: {"showHeader": True, "cellHeight": "sm"},
}
