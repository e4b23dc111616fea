"""Pure: what the processes of a mesh tell at a moment, and what has grown between two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from omni_cli.top.exposition import Metric, Page


@dataclass(frozen=True, slots=True)
class Seen:
    """A process, and what it tells; None when it does not answer. `pipeline`, `group`: "" where it is not known."""

    name: str
    pipeline: str
    page: Page | None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All processes at one moment, `at` in seconds of any clock that only goes forward."""

    at: float
    processes: Sequence[Seen]


class Change:
    """What grew between two moments, over all processes of a pipeline. Rates are those between the two; so are means,
    and where nothing moved, since the processes began."""

    def __init__(self, before: Snapshot, now: Snapshot) -> None:
        self._seconds = now.at - before.at
        pages = {seen.name: page for seen, page in answering(before)}
        self._before = pages
        self._pairs: defaultdict[str, list[tuple[Page | None, Page]]] = defaultdict(list)
        for seen, page in answering(now):
            self._pairs[seen.pipeline].append((pages.get(seen.name), page))

    def now(self, pipeline: str, metric: Metric, labels: Mapping[str, str], part: str = "") -> float:
        return sum(page.total(metric, part, **labels) for _, page in self._pairs[pipeline])

    def rate(self, pipeline: str, metric: Metric, labels: Mapping[str, str]) -> float:
        """A second."""
        return self._grown(pipeline, metric, labels) / self._seconds

    def mean_of(self, seen: Seen, metric: Metric, labels: Mapping[str, str]) -> float | None:
        """Of a histogram of one process."""
        if seen.page is None:
            return None
        return _mean(lambda page, part: page.total(metric, part, **labels), self._before.get(seen.name), seen.page)

    def mean(self, pipeline: str, metric: Metric, labels: Mapping[str, str]) -> float | None:
        """Of a histogram."""
        for amount in (self._grown, self.now):
            if number := amount(pipeline, metric, labels, "count"):
                return amount(pipeline, metric, labels, "sum") / number
        return None

    def _grown(self, pipeline: str, metric: Metric, labels: Mapping[str, str], part: str = "") -> float:
        def total(page: Page) -> float:
            return page.total(metric, part, **labels)

        return sum(growth(before, page, total) for before, page in self._pairs[pipeline])


def _mean(amount: Callable[[Page, str], float], before: Page | None, now: Page) -> float | None:
    if number := growth(before, now, lambda page: amount(page, "count")):
        return growth(before, now, lambda page: amount(page, "sum")) / number
    number = amount(now, "count")
    return amount(now, "sum") / number if number else None


def growth(before: Page | None, now: Page, total: Callable[[Page], float]) -> float:
    """A process that began anew since then counts from 0; of one that is new, nobody knows when it counted."""
    if before is None:
        return 0.0
    grown = total(now) - total(before)
    return grown if grown >= 0 else total(now)


def answering(snapshot: Snapshot) -> Iterator[tuple[Seen, Page]]:
    for seen in snapshot.processes:
        if seen.page is not None:
            yield seen, seen.page
