"""Dashboards, rules and autoscaling ask for what there is, and what there is can be seen."""

from __future__ import annotations

from collections import Counter

import promql_parser
import pytest
from tests.observability.exempt import NOT_LIVE, NOT_ON_A_DASHBOARD
from tests.observability.written import (
    BOARDS,
    CHART,
    Drawn,
    asked_for,
    drawn,
    exposed,
    metrics,
    panels,
    recorded,
    rules,
    scaled_on,
    series_of,
)

from omni_cli.dashboards.__main__ import made

# Of the cluster's own exporters: only the Kubernetes board asks for them.
FOREIGN = ("kube_", "container_", "DCGM_")
UNITS = {"s", "Bps", "bytes", "mbytes", "reqps", "ops", "cps", "percent", "percentunit", "short", "cores"}
WINDOW = "5m"


@pytest.mark.parametrize("name", made())
def test_what_is_generated_is_what_is_kept(name: str) -> None:
    assert (CHART / name).read_text() == made()[name], "Run `make generate`."


@pytest.mark.parametrize("folder", ["dashboards", "rules"])
def test_every_generated_file_has_its_source(folder: str) -> None:
    kept = {str(path.relative_to(CHART)) for path in (CHART / folder).iterdir()}
    assert kept - made().keys() <= {"rules/alerts.yaml"}  # kept by hand


@pytest.mark.parametrize("query", drawn(), ids=lambda query: query.name)
def test_a_panel_asks_for_metrics_that_there_are(query: Drawn) -> None:
    known = exposed() | recorded() | {"up"}
    asked = asked_for(query.over(WINDOW))
    assert asked
    if query.board == "omni-kubernetes":
        assert all(name.startswith(FOREIGN) for name in asked)
    else:
        assert asked <= known
    assert "$" not in query.over(WINDOW)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_metrics_that_there_are(rule: dict[str, str]) -> None:
    assert asked_for(rule["expr"]) <= exposed() | recorded() | {"up"}


def test_autoscaling_asks_for_metrics_that_there_are() -> None:
    # An adapter's name for a percentile of a histogram.
    percentiles = {f"{name.removesuffix('_bucket')}_p95" for name in exposed() if name.endswith("_bucket")}
    bases = {name.removesuffix("_bucket") for name in exposed() if name.endswith("_bucket")}
    assert "omni_stage_oldest_waiting_seconds" in scaled_on()
    assert scaled_on() <= exposed() | percentiles | bases


@pytest.mark.parametrize("name", metrics())
def test_every_metric_is_on_a_dashboard_or_exempt(name: str) -> None:
    seen = {series for query in drawn() for series in asked_for(query.over(WINDOW))}
    is_seen = bool(seen & series_of(name, metrics()[name]))
    assert is_seen != (name in NOT_ON_A_DASHBOARD)


@pytest.mark.parametrize("prefix", NOT_LIVE)
def test_an_exemption_is_of_a_query_that_there_is(prefix: str) -> None:
    assert any(query.name.startswith(prefix) for query in drawn())


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_a_dashboard_is_one_that_grafana_takes_anywhere(board: dict[str, object]) -> None:
    templating = board["templating"]
    assert isinstance(templating, dict)
    assert [variable["name"] for variable in templating["list"]] == ["datasource", "namespace", "pipeline"]
    every = board["panels"]
    assert isinstance(every, list)
    assert max(Counter(panel["id"] for panel in every).values()) == 1
    assert max(Counter(panel["title"] for panel in panels(board)).values()) == 1 or board["uid"] == "omni-kubernetes"
    for panel in panels(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_no_panel_lies_on_another_or_leaves_the_page(board: dict[str, object]) -> None:
    taken: set[tuple[int, int]] = set()
    every = board["panels"]
    assert isinstance(every, list)
    for panel in every:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        taken |= cells


def test_rates_span_what_grafana_says() -> None:
    for query in drawn():
        if "rate(" in query.expression:
            assert "[$__rate_interval]" in query.expression


def test_the_parser_refuses_what_prometheus_would() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum by (rate(omni_requests_total[5m])")
