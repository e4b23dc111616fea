"""Dashboards by Grafana's own model of them: kinds of panels that it has, fields that it knows, values that they take.

The model is that of dashboards' first version, which every Grafana reads from a file: the package calls it deprecated.
"""

from __future__ import annotations

import copy
import json
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import UnknownDataquery, panelcfg_config
from tests.observability.written import CHART

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models.dashboard import Dashboard

FILES = sorted((CHART / "dashboards").glob("*.json"))
MODELS = "grafana_foundation_sdk.models"
_PLAIN: Mapping[Any, tuple[type, ...]] = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}
Change = Callable[[Any], object]


@pytest.fixture(scope="module", autouse=True)
def _kinds() -> None:
    register_default_plugins()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_grafana_knows_all_of_a_dashboard(file: Path) -> None:
    assert list(complaints(json.loads(file.read_text()))) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda board: _panel(board).update(type="graph"), ".panels.type: there is no panel 'graph'"),
        (lambda board: _panel(board).update(tittle="x"), ".panels.tittle: Grafana drops it"),
        (lambda board: _panel(board)["options"].update(legnd={}), ".panels.options.legnd: Grafana drops it"),
        (
            lambda board: _panel(board)["fieldConfig"]["defaults"]["custom"].update(showPoints="often"),
            ".panels.field_config.defaults.custom.show_points: 'often' is no VisibilityMode",
        ),
        (lambda board: _panel(board).update(title=7), ".panels.title: 7 is no str"),
        (lambda board: _panel(board)["targets"][0].update(exper="x"), ".panels.targets.exper: Grafana drops it"),
        (lambda board: board["templating"]["list"][1].update(sort=99), ".templating.list_val.sort: 99 is no"),
    ],
    ids=["kind", "field", "option", "choice", "type", "query", "variable"],
)
def test_what_grafana_does_not_know_is_found(change: Change, complaint: str) -> None:
    board = json.loads(next(file for file in FILES if file.stem == "omni-pipeline").read_text())
    change(board)
    assert [said for said in complaints(board) if said.startswith(complaint)]


def complaints(board: Mapping[str, Any]) -> Iterator[str]:
    """About kinds of panels, fields that a reader loses, and values that a field does not take."""
    made = Dashboard.from_json(copy.deepcopy(dict(board)))
    kept = json.loads(JSONEncoder().encode(made))
    kinds = (panel["type"] for panel in board["panels"] if panel["type"] != "row")
    unknown = (f".panels.type: there is no panel '{kind}'" for kind in kinds if panelcfg_config(kind) is None)
    yield from chain(unknown, _lost(board, kept, ""), _wrong(made, Dashboard, ""))


def _lost(given: Any, kept: Any, where: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from _lost(value, kept[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}: Grafana drops it"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for one, other in zip(given, kept, strict=True):
            yield from _lost(one, other, where)
    elif given != kept:
        yield f"{where}: Grafana reads {given!r} as {kept!r}"


def _wrong(value: Any, hint: Any, where: str) -> Iterator[str]:
    """Values that are not what their field is declared to be; the package itself does not look."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, UnknownDataquery):
        yield f"{where}: Grafana knows no such query"
    elif origin in (typing.Union, types.UnionType):
        found = [list(_wrong(value, one, where)) for one in inner]
        if all(found):
            yield from found[0]
    elif origin in (list, dict) and isinstance(value, origin):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _wrong(one, inner[-1], where)
    elif type(value).__module__.startswith(MODELS) and not isinstance(value, Enum):
        yield from _fields(value, where)
    elif not _is(value, origin or hint):
        yield f"{where}: {value!r} is no {getattr(hint, '__name__', hint)}"


def _fields(made: Any, where: str) -> Iterator[str]:
    hints = typing.get_type_hints(type(made))
    for name, value in vars(made).items():
        yield from _wrong(value, hints.get(name, Any), f"{where}.{name}")


def _is(value: Any, hint: Any) -> bool:
    if not isinstance(hint, type) or hint in (object, Any):
        return True
    if issubclass(hint, Enum):
        return value in [one.value for one in hint] or isinstance(value, hint)
    if hint in _PLAIN:
        return isinstance(value, _PLAIN[hint]) and (hint is bool or not isinstance(value, bool))
    return isinstance(value, hint)


def _panel(board: Mapping[str, Any]) -> dict[str, Any]:
    panels: Sequence[dict[str, Any]] = board["panels"]
    return next(panel for panel in panels if panel["type"] == "timeseries")
