"""Which replica of each stage serves a request: the least loaded, then the nearest, then the first by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from omni_common.errors import Overloaded, StageUnavailable


class Phase(StrEnum):
    """How far a replica is; the same list as `omni.coordinator.v1.StagePhase`."""

    STARTING = "starting"
    LOADING = "loading"
    WARMING_UP = "warming_up"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True, eq=False)
class Replica:
    """One attached replica. `number` is new with every attachment; `outstanding` counts this coordinator's requests,
    `reported` is what the replica last said of everybody's."""

    number: int
    pipeline: str
    stage: str
    name: str
    address: str
    pod: str
    capacity: int
    phase: Phase = Phase.STARTING
    tensors_loaded: int = 0
    tensors_total: int = 0
    outstanding: int = 0
    reported: int = 0
    relay: str = ""

    @property
    def load(self) -> int:
        return max(self.outstanding, self.reported)


@dataclass(frozen=True, slots=True)
class Visit:
    """A stage that a request may visit, and the stages that send to it."""

    stage: str
    sources: frozenset[str]


def bind(visits: Sequence[Visit], replicas: Mapping[str, Sequence[Replica]]) -> dict[str, Replica]:
    """One replica for each visit; `visits` come in the order of the graph.

    Raises StageUnavailable where no replica is ready, Overloaded where all that are ready are full.
    """
    chosen: dict[str, Replica] = {}
    for visit in visits:
        pods = [chosen[source].pod for source in visit.sources if source in chosen]
        chosen[visit.stage] = _pick(visit.stage, replicas.get(visit.stage, ()), pods)
    return chosen


def _pick(stage: str, replicas: Sequence[Replica], pods: Sequence[str]) -> Replica:
    ready = [replica for replica in replicas if replica.phase is Phase.READY]
    if not ready:
        raise StageUnavailable(stage, "has no ready replica")
    free = [replica for replica in ready if replica.outstanding < replica.capacity]
    if not free:
        held = sum(replica.outstanding for replica in ready)
        raise Overloaded(f"Stage '{stage}' has {held} requests, which is all it can hold.", stage=stage)
    return min(free, key=lambda replica: (replica.load, -pods.count(replica.pod), replica.name, replica.number))
