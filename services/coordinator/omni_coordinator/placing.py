"""Where attempts take place: one replica of each stage, and the way to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omni_common.request import Binding
from omni_coordinator.core.bindings import bind
from omni_coordinator.core.events import Bound
from omni_coordinator.core.pipeline_table import Course
from omni_coordinator.core.roster import Roster
from omni_coordinator.link import StageLink


@dataclass(frozen=True, slots=True)
class Placed:
    """The replicas of one attempt, each of which counts it as outstanding until `leave`."""

    bound: tuple[Bound, ...]
    links: Mapping[int, StageLink]

    @property
    def bindings(self) -> Mapping[str, Binding]:
        replicas = [link.replica for link in self.links.values()]
        return {r.stage: Binding(r.name, r.address, r.pod, r.relay) for r in replicas}

    def leave(self, left: Callable[[StageLink], None]) -> None:
        """Nothing of the attempt is in its replicas."""
        for link in self.links.values():
            link.replica.outstanding -= 1
            left(link)


def place(
    course: Course, roster: Roster, links: Mapping[int, StageLink], without: frozenset[int] = frozenset()
) -> Placed:
    """Raises OmniError where a stage has no replica that is ready and has room, other than `without`."""
    here = {
        stage: [replica for replica in replicas if replica.number not in without]
        for stage, replicas in roster.replicas(course.pipeline.name).items()
    }
    chosen = bind(course.visits, here)
    for replica in chosen.values():
        replica.outstanding += 1
    return Placed(
        bound=tuple(
            Bound(stage, r.number, course.pipeline.stage(stage).terminal if stage in course.terminals else None)
            for stage, r in chosen.items()
        ),
        links={r.number: links[r.number] for r in chosen.values()},
    )
