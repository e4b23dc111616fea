"""What the gateway knows about a pipeline, as coordinators tell it."""

from __future__ import annotations

from dataclasses import dataclass

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import StageUnavailable
from omni_common.request import Modality, Task


@dataclass(frozen=True, slots=True)
class ReplicaView:
    replica: str
    phase: str
    tensors_loaded: int
    tensors_total: int


@dataclass(frozen=True, slots=True)
class StageView:
    stage: str
    ready_replicas: int
    replicas: tuple[ReplicaView, ...]


@dataclass(frozen=True, slots=True)
class PipelineView:
    """One pipeline at one coordinator."""

    name: str
    ready: bool
    input_modalities: frozenset[Modality]
    output_modalities: frozenset[Modality]
    voices: tuple[str, ...]
    default_voice: str
    tasks: frozenset[Task]
    languages: tuple[str, ...]
    stages: tuple[StageView, ...]

    def unavailable(self) -> StageUnavailable:
        """Why it takes no request just now."""
        missing = [s.stage for s in self.stages if not s.ready_replicas]
        if missing:
            return StageUnavailable(missing[0], "has no replica that is ready")
        return StageUnavailable(self.name, "is not ready")


def parse_pipeline(status: pb.PipelineStatus) -> PipelineView:
    """Modalities and tasks that a newer coordinator knows and this gateway does not are left out."""
    return PipelineView(
        name=status.name,
        ready=status.ready,
        input_modalities=_modalities(list(status.input_modalities)),
        output_modalities=_modalities(list(status.output_modalities)),
        voices=tuple(status.voices),
        default_voice=status.default_voice,
        tasks=frozenset(_TASKS[n] for n in status.tasks if n in _TASKS),
        languages=tuple(status.languages),
        stages=tuple(_stage(s) for s in status.stages),
    )


def _stage(status: pb.StageStatus) -> StageView:
    return StageView(status.stage, status.ready_replicas, tuple(_replica(r) for r in status.replicas))


def _replica(status: pb.ReplicaStatus) -> ReplicaView:
    phase = pb.StagePhase.Name(status.phase).removeprefix("STAGE_PHASE_").lower()
    return ReplicaView(status.replica, phase, status.tensors_loaded, status.tensors_total)


_TASKS = {1: Task.CHAT, 2: Task.SPEECH, 3: Task.TRANSCRIPTION, 4: Task.TRANSLATION}
_MODALITIES = {1: Modality.TEXT, 2: Modality.AUDIO, 3: Modality.IMAGE, 4: Modality.VIDEO}


def _modalities(numbers: list[int]) -> frozenset[Modality]:
    return frozenset(_MODALITIES[n] for n in numbers if n in _MODALITIES)
