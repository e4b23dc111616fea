"""Who is here: the attached replicas of every pipeline, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omni_common.pipeline import PipelineConfig
from omni_coordinator.core.bindings import Phase, Replica


@dataclass(frozen=True, slots=True)
class PipelineState:
    """A pipeline and its replicas by stage; ready when at least one replica of every stage is."""

    config: PipelineConfig
    stages: Mapping[str, Sequence[Replica]]

    @property
    def ready(self) -> bool:
        return all(any(r.phase is Phase.READY for r in replicas) for replicas in self.stages.values())


class Roster:
    """The attached replicas by pipeline, stage and name."""

    def __init__(self, pipelines: Mapping[str, PipelineConfig]) -> None:
        self._pipelines = pipelines
        self._replicas: dict[str, dict[str, dict[str, Replica]]] = {
            name: {stage.name: {} for stage in config.stages} for name, config in pipelines.items()
        }

    def add(self, replica: Replica) -> Replica | None:
        """Adds it. Returns the replica of the same name whose place it takes: a connection that has not noticed its
        end yet."""
        stage = self._replicas[replica.pipeline][replica.stage]
        former = stage.pop(replica.name, None)
        stage[replica.name] = replica
        return former

    def remove(self, replica: Replica) -> None:
        """Takes it off; idempotent, and a successor of the same name stays."""
        stage = self._replicas[replica.pipeline][replica.stage]
        if stage.get(replica.name) is replica:
            del stage[replica.name]

    def replicas(self, pipeline: str) -> Mapping[str, Sequence[Replica]]:
        return {stage: tuple(replicas.values()) for stage, replicas in self._replicas[pipeline].items()}

    def state(self, pipeline: str) -> PipelineState:
        return PipelineState(self._pipelines[pipeline], self.replicas(pipeline))
