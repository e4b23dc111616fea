"""What the gateway knows about a pipeline, as coordinators tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import InvalidRequest, StageUnavailable
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

    def voice_called(self, name: str, param: str) -> str:
        """The voice of this name in any case; empty, for the pipeline's default, where `name` is. A pipeline that names
        no voices decides itself. Raises InvalidRequest that names `param`."""
        if not name or not self.voices:
            return name
        for known in self.voices:
            if known.lower() == name.lower():
                return known
        raise InvalidRequest(
            f"The model '{self.name}' has no such voice; it has {_some(self.voices)}.",
            param=param,
            code="invalid_value",
        )

    def unavailable(self) -> StageUnavailable:
        """Why it takes no request just now."""
        missing = [s.stage for s in self.stages if not s.ready_replicas]
        if missing:
            return StageUnavailable(missing[0], "has no replica that is ready")
        return StageUnavailable(self.name, "is not ready")


def _some(names: Sequence[str], most: int = 50) -> str:
    """Voices of many speakers come by the hundred."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


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
