"""Pure: one process's page of metrics, read by the names that the services write it with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
Metric = Counter | Gauge | Histogram


class Page:
    """The series of one process at one moment."""

    def __init__(self, series: Mapping[str, list[tuple[Labels, float]]]) -> None:
        self._series = series

    def of(self, metric: Metric, part: str = "") -> Iterator[tuple[Labels, float]]:
        """Every series of the metric; of a histogram, `part` is "sum" or "count"."""
        yield from self._series.get(_series_name(metric, part), ())

    def total(self, metric: Metric, part: str = "", **labels: str) -> float:
        """Over all series that have these labels; 0 when there is none."""
        return sum(value for found, value in self.of(metric, part) if labels.items() <= found.items())


def parse_page(text: str) -> Page:
    """Raises ValueError when it is not what Prometheus reads."""
    series: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                series[sample.name].append((sample.labels, sample.value))
    return Page(series)


def _series_name(metric: Metric, part: str) -> str:
    (family,) = metric.describe()
    if isinstance(metric, Counter):
        return f"{family.name}_total"
    return f"{family.name}_{part}" if part else family.name
