"""What the chart ships for Prometheus and Grafana, read back: panels, rules, and the names in their expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from omni_common.telemetry import names

CHART = Path(__file__).parents[2] / "charts" / "omni"
BOARDS: Mapping[str, Any] = {
    path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))
}
RULES: Mapping[str, Any] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "rules").glob("*.yaml"))
}
# As Grafana puts them in where all are chosen.
VARIABLES = {"$namespace": ".*", "$pipeline": ".*"}


@dataclass(frozen=True, slots=True)
class Drawn:
    """One query of a panel."""

    board: str
    panel: str
    legend: str
    expression: str

    @property
    def name(self) -> str:
        return f"{self.board} / {self.panel} / {self.legend}"

    def over(self, window: str) -> str:
        """What Grafana would ask."""
        asked = self.expression.replace("$__rate_interval", window)
        for variable, value in VARIABLES.items():
            asked = asked.replace(variable, value)
        return asked


def panels(board: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Without the headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def drawn() -> Sequence[Drawn]:
    """Every query of every panel."""
    return [
        Drawn(name, panel["title"], target["legendFormat"], target["expr"])
        for name, board in BOARDS.items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def rules() -> Sequence[Mapping[str, Any]]:
    return [rule for file in RULES.values() for group in file["groups"] for rule in group["rules"]]


def alerts() -> Sequence[str]:
    """Their names, each once."""
    return list(dict.fromkeys(rule["alert"] for rule in rules() if "alert" in rule))


def asked_for(expression: str) -> set[str]:
    """The names of the series that an expression asks for."""
    found: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def metrics() -> Mapping[str, MetricWrapperBase]:
    """Of the names module, by their name."""
    each = [metric for metric in vars(names).values() if isinstance(metric, MetricWrapperBase)]
    return {next(iter(metric.describe())).name: metric for metric in each}


def series_of(name: str, metric: MetricWrapperBase) -> set[str]:
    """The names under which a metric is exposed."""
    if isinstance(metric, Counter):
        return {f"{name}_total"}
    if isinstance(metric, Histogram):
        return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return {name}


def exposed() -> set[str]:
    """All of them."""
    return {series for name, metric in metrics().items() for series in series_of(name, metric)}


def recorded() -> set[str]:
    """The names that recording rules give."""
    return {rule["record"] for rule in rules() if "record" in rule}


def scaled_on() -> set[str]:
    """What looks like a metric in the chart's templates of autoscaling."""
    text = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*scaling*")))
    text = re.sub(r"\{\{/\*.*?\*/}}", "", text, flags=re.DOTALL)
    return set(re.findall(r"\bomni_[a-z0-9_]+", text))
