"""Pure: from what the processes tell at two moments to the rows that are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from omni_cli.top.exposition import Metric, Page
from omni_common.errors import Reason
from omni_common.pipeline import replica_names
from omni_common.telemetry import names
from omni_common.telemetry.names import Transport, outcome_of

_NOBODY = "free"  # among the holders of an arena
# The rest do without an arena, so that nothing waits for room.
_WITHOUT_ARENA = frozenset({Transport.OBJECT, Transport.INLINE, Transport.GRPC})


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


@dataclass(frozen=True, slots=True)
class StageRow:
    """A replica, and the requests that it has; `refused` is all of its process's."""

    replica: str
    phase: str
    live: int
    waiting: int
    running: int
    refused: int


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """An edge by one transport: what went over it. Times are means in seconds, None where nothing was ever timed."""

    edge: str
    transport: str
    why: str
    bytes_per_second: float
    transfers_per_second: float
    latency: float | None
    room_wait: float | None
    credit_wait: float | None
    retries: int
    corrupted: int


@dataclass(frozen=True, slots=True)
class RelayRow:
    """A pod's arena in bytes, by who holds it, and the relay that lends it."""

    relay: str
    phase: str
    size: int
    in_use: int
    holders: Mapping[str, int]
    reclaimed: int
    peers: int
    damaged: int


@dataclass(frozen=True, slots=True)
class Rows:
    """All that is shown."""

    stages: Sequence[StageRow]
    edges: Sequence[EdgeRow]
    relays: Sequence[RelayRow]
    silent: Sequence[str]


def rows(before: Snapshot, now: Snapshot) -> Rows:
    """Rates are those between the two; so are mean times, and where nothing moved, since the processes began."""
    return Rows(
        stages=[row for seen, page in _answering(now) if _is(page, "stage") for row in _stage_rows(seen.name, page)],
        edges=_edge_rows(before, now),
        relays=[_relay_row(seen.name, page) for seen, page in _answering(now) if _is(page, "relay")],
        silent=[seen.name for seen in now.processes if seen.page is None],
    )


def _is(page: Page, service: str) -> bool:
    return page.total(names.BUILD_INFO, service=service) > 0


def _phase(page: Page) -> str:
    return "serving" if page.total(names.SERVING) else "not serving"


def _stage_rows(process: str, page: Page) -> Iterator[StageRow]:
    """One for each stage of the process."""
    stages = sorted({labels["stage"] for labels, _ in page.of(names.STAGE_LIVE_REQUESTS)})
    if len(stages) < 2:
        yield _stage_row(process, page)
        return
    for replica, stage in zip(replica_names(process, stages), stages, strict=True):
        yield _stage_row(replica, page, stage=stage)


def _stage_row(replica: str, page: Page, **labels: str) -> StageRow:
    return StageRow(
        replica,
        _phase(page),
        live=int(page.total(names.STAGE_LIVE_REQUESTS, **labels)),
        waiting=int(page.total(names.STAGE_WAITING, **labels)),
        running=int(page.total(names.STAGE_RUNNING, **labels)),
        refused=int(page.total(names.CHECKSUM_FAILURES)),
    )


def _relay_row(relay: str, page: Page) -> RelayRow:
    holders = {labels["holder"]: int(value) for labels, value in page.of(names.RELAY_ARENA_BYTES)}
    free = holders.pop(_NOBODY, 0)
    in_use = sum(holders.values())
    return RelayRow(
        relay,
        _phase(page),
        size=free + in_use,
        in_use=in_use,
        holders={holder: size for holder, size in sorted(holders.items()) if size},
        reclaimed=int(page.total(names.RELAY_RECLAIMED)),
        peers=int(page.total(names.RELAY_PEERS)),
        damaged=int(page.total(names.RELAY_CHECKSUM_FAILURES)),
    )


# Pipeline, edge.
_Edge = tuple[str, str]


def _edge_rows(before: Snapshot, now: Snapshot) -> list[EdgeRow]:
    change = _Change(before, now)
    return [_edge_row(edge, transport, why, change) for (edge, transport), why in sorted(_edges(now).items())]


def _edges(now: Snapshot) -> dict[tuple[_Edge, str], str]:
    """Every edge and transport that a process knows, and why it is that one: where it is the one for large tensors."""
    edges: dict[tuple[_Edge, str], str] = {}
    for seen, page in _answering(now):
        for labels, _ in page.of(names.EDGE_BYTES):
            edges.setdefault(((seen.pipeline, labels["edge"]), labels["transport"]), "")
        for labels, stands in page.of(names.EDGE_TRANSPORT):
            if stands:
                edges[(seen.pipeline, labels["edge"]), labels["transport"]] = labels["reason"]
    return edges


def _edge_row(edge: _Edge, transport: str, why: str, change: _Change) -> EdgeRow:
    pipeline, name = edge
    of_edge = {"edge": name}
    both = {"edge": name, "transport": transport}
    waits = transport not in _WITHOUT_ARENA
    return EdgeRow(
        f"{pipeline}/{name}" if pipeline else name,
        transport,
        why,
        bytes_per_second=change.rate(pipeline, names.EDGE_BYTES, both),
        transfers_per_second=change.rate(pipeline, names.EDGE_TRANSFERS, both),
        latency=change.mean(pipeline, names.EDGE_SECONDS, both),
        room_wait=change.mean(pipeline, names.EDGE_WAIT_SECONDS, of_edge) if waits else None,
        credit_wait=change.mean(pipeline, names.RELAY_WAIT_SECONDS, of_edge) if _between_pods(transport) else None,
        retries=int(change.now(pipeline, names.EDGE_RETRIES, both)),
        corrupted=int(change.now(pipeline, names.RELAY_TRANSFERS, {**both, **_CORRUPTED})),
    )


# As the relay that pushes counts it, so that one transfer is not counted at both ends.
_CORRUPTED = {"direction": "out", "outcome": outcome_of(Reason.DATA_CORRUPTED)}


def _between_pods(transport: str) -> bool:
    return transport not in {*_WITHOUT_ARENA, Transport.ARENA}


class _Change:
    """What grew between two moments, over all processes of a pipeline."""

    def __init__(self, before: Snapshot, now: Snapshot) -> None:
        self._seconds = now.at - before.at
        pages = {seen.name: page for seen, page in _answering(before)}
        self._pairs: defaultdict[str, list[tuple[Page | None, Page]]] = defaultdict(list)
        for seen, page in _answering(now):
            self._pairs[seen.pipeline].append((pages.get(seen.name), page))

    def now(self, pipeline: str, metric: Metric, labels: Mapping[str, str], part: str = "") -> float:
        return sum(page.total(metric, part, **labels) for _, page in self._pairs[pipeline])

    def rate(self, pipeline: str, metric: Metric, labels: Mapping[str, str]) -> float:
        """A second."""
        return self._grown(pipeline, metric, labels) / self._seconds

    def mean(self, pipeline: str, metric: Metric, labels: Mapping[str, str]) -> float | None:
        """Of a histogram."""
        for amount in (self._grown, self.now):
            if number := amount(pipeline, metric, labels, "count"):
                return amount(pipeline, metric, labels, "sum") / number
        return None

    def _grown(self, pipeline: str, metric: Metric, labels: Mapping[str, str], part: str = "") -> float:
        def total(page: Page) -> float:
            return page.total(metric, part, **labels)

        return sum(_growth(before, page, total) for before, page in self._pairs[pipeline])


def _growth(before: Page | None, now: Page, total: Callable[[Page], float]) -> float:
    """A process that began anew since then counts from 0; of one that is new, nobody knows when it counted."""
    if before is None:
        return 0.0
    grown = total(now) - total(before)
    return grown if grown >= 0 else total(now)


def _answering(snapshot: Snapshot) -> Iterator[tuple[Seen, Page]]:
    for seen in snapshot.processes:
        if seen.page is not None:
            yield seen, seen.page
