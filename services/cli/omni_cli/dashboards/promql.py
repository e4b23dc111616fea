"""Expressions that panels have in common. `scope` is what the dashboard's variables narrow a metric to."""

from __future__ import annotations

MESH = 'namespace=~"$namespace"'
"""What is of no single pipeline."""
PIPELINE = f'{MESH},pipeline=~"$pipeline"'
"""A label of the metric, or of a target that serves one pipeline only: pods of stages with their relay."""
WINDOW = "[$__rate_interval]"


def select(metric: str, *, scope: str = PIPELINE, where: str = "") -> str:
    """The series of a metric; `where` are further matchers."""
    return f"{metric}{{{','.join(filter(None, (scope, where)))}}}"


def rate(metric: str, *by: str, scope: str = PIPELINE, where: str = "") -> str:
    """Of a counter, a second."""
    return _sum(f"rate({select(metric, scope=scope, where=where)}{WINDOW})", by)


def total(metric: str, *by: str, scope: str = PIPELINE, where: str = "") -> str:
    """Of a gauge."""
    return _sum(select(metric, scope=scope, where=where), by)


def most(metric: str, *by: str, scope: str = PIPELINE) -> str:
    """The largest of a gauge."""
    return f"max{_by(by)} ({select(metric, scope=scope)})"


def quantile(share: float, metric: str, *by: str, scope: str = PIPELINE) -> str:
    """Of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', *by, 'le', scope=scope)})"


def mean(metric: str, *by: str, scope: str = PIPELINE) -> str:
    """Of a histogram, over the window."""
    return f"{rate(f'{metric}_sum', *by, scope=scope)} / {rate(f'{metric}_count', *by, scope=scope)}"


def _sum(expression: str, by: tuple[str, ...]) -> str:
    return f"sum{_by(by)} ({expression})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
