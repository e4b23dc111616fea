"""What a dashboard is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omni_cli.dashboards.promql import PIPELINE, quantile


class Kind(StrEnum):
    """Grafana's names of panel types."""

    LINES = "timeseries"
    NUMBER = "stat"
    BARS = "bargauge"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and what its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`unit` is Grafana's. Twelve panels of width 2 fill a line, so do two of 12. Above `alarm` (or, where less is
    worse, below it) a number is red."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.LINES
    width: int = 8
    stacked: bool = False
    most: float | None = None
    alarm: float | None = None
    less_is_worse: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `name` is that of its file and in its address."""

    name: str
    title: str
    says: str
    rows: tuple[Row, ...]


def quantiles(metric: str, *by: str, scope: str = PIPELINE) -> tuple[Query, ...]:
    """Three of a histogram, a line each."""
    of = " ".join(f"{{{{{label}}}}}" for label in by)
    return tuple(
        Query(quantile(share, metric, *by, scope=scope), f"{name} {of}".strip())
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )


def p95(metric: str, *by: str, scope: str = PIPELINE) -> tuple[Query, ...]:
    """The 95th percentile of a histogram, a line for each."""
    return (Query(quantile(0.95, metric, *by, scope=scope), " ".join(f"{{{{{label}}}}}" for label in by)),)
