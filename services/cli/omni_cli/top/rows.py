"""Pure: from what the processes tell at two moments to the rows that are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from omni_cli.top.change import Change, Seen, Snapshot, answering
from omni_cli.top.exposition import Page
from omni_cli.top.pipelines import PipelineRow, pipeline_rows
from omni_common.errors import Reason
from omni_common.pipeline import replica_names
from omni_common.telemetry import names
from omni_common.telemetry.names import Transport, outcome_of

_NOBODY = "free"  # among the holders of an arena
# The rest do without an arena, so that nothing waits for room.
_WITHOUT_ARENA = frozenset({Transport.OBJECT, Transport.INLINE, Transport.GRPC})


@dataclass(frozen=True, slots=True)
class StageRow:
    """A replica, and the requests that it has; `queued` is how long one waits for its first step, in seconds, and
    `refused` is all of its process's."""

    replica: str
    phase: str
    live: int
    waiting: int
    running: int
    refused: int
    queued: float | None = None


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
    pipelines: Sequence[PipelineRow] = ()


def rows(before: Snapshot, now: Snapshot) -> Rows:
    """Rates are those between the two; so are mean times, and where nothing moved, since the processes began."""
    change = Change(before, now)
    return Rows(
        stages=[row for seen, page in answering(now) if _is(page, "stage") for row in _stage_rows(seen, page, change)],
        edges=[_edge_row(edge, transport, why, change) for (edge, transport), why in sorted(_edges(now).items())],
        relays=[_relay_row(seen.name, page) for seen, page in answering(now) if _is(page, "relay")],
        silent=[seen.name for seen in now.processes if seen.page is None],
        pipelines=pipeline_rows(now, change),
    )


def _is(page: Page, service: str) -> bool:
    return page.total(names.BUILD_INFO, service=service) > 0


def _phase(page: Page) -> str:
    return "serving" if page.total(names.SERVING) else "not serving"


def _stage_rows(seen: Seen, page: Page, change: Change) -> Iterator[StageRow]:
    """One for each stage of the process."""
    stages = sorted({labels["stage"] for labels, _ in page.of(names.STAGE_LIVE_REQUESTS)})
    if len(stages) < 2:
        yield _stage_row(seen.name, page, change.mean_of(seen, names.STAGE_QUEUE_SECONDS, {}))
        return
    for replica, stage in zip(replica_names(seen.name, stages), stages, strict=True):
        queued = change.mean_of(seen, names.STAGE_QUEUE_SECONDS, {"stage": stage})
        yield _stage_row(replica, page, queued, stage=stage)


def _stage_row(replica: str, page: Page, queued: float | None, **labels: str) -> StageRow:
    return StageRow(
        replica,
        _phase(page),
        live=int(page.total(names.STAGE_LIVE_REQUESTS, **labels)),
        waiting=int(page.total(names.STAGE_WAITING, **labels)),
        running=int(page.total(names.STAGE_RUNNING, **labels)),
        refused=int(page.total(names.CHECKSUM_FAILURES)),
        queued=queued,
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


def _edges(now: Snapshot) -> dict[tuple[_Edge, str], str]:
    """Every edge and transport that a process knows, and why it is that one: where it is the one for large tensors."""
    edges: dict[tuple[_Edge, str], str] = {}
    for seen, page in answering(now):
        for labels, _ in page.of(names.EDGE_BYTES):
            edges.setdefault(((seen.pipeline, labels["edge"]), labels["transport"]), "")
        for labels, stands in page.of(names.EDGE_TRANSPORT):
            if stands:
                edges[(seen.pipeline, labels["edge"]), labels["transport"]] = labels["reason"]
    return edges


def _edge_row(edge: _Edge, transport: str, why: str, change: Change) -> EdgeRow:
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
