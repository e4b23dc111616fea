"""What a `FakeCoordinator` is told to say, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import OmniError
from omni_common.request import (
    AudioOutput,
    FinishReason,
    GenerationRequest,
    Modality,
    Segment,
    StageReport,
    Task,
    TextOutput,
    Usage,
)
from omni_common.rpc.convert import render_modality, render_task


@dataclass(frozen=True, slots=True)
class Admit:
    request_id: str = "r-1"


@dataclass(frozen=True, slots=True)
class Finish:
    finish_reason: FinishReason = FinishReason.STOP
    usage: Usage = field(default_factory=Usage)
    reports: tuple[StageReport, ...] = ()


Step = Admit | TextOutput | AudioOutput | Segment | Finish | OmniError | anyio.Event
"""What the coordinator does next; an Event is waited for, without an end: the test's own time limit is one."""


@dataclass(eq=False)
class Scripted:
    """One scripted answer, and what became of its request."""

    steps: tuple[Step, ...]
    submitted: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    sent: int = 0
    submit: pb.Submit = field(default_factory=pb.Submit)
    request: GenerationRequest | None = None


def pipeline_status(
    name: str,
    *,
    ready: bool = True,
    voices: tuple[str, ...] = ("Ethan", "Chelsie"),
    takes: tuple[Modality, ...] = tuple(Modality),
    makes: tuple[Modality, ...] = (Modality.TEXT, Modality.AUDIO),
    tasks: tuple[Task, ...] = (Task.CHAT,),
    languages: tuple[str, ...] = (),
    stages: tuple[str, ...] = ("thinker", "talker"),
) -> pb.PipelineStatus:
    """A pipeline whose every stage has one replica, which is loading when the pipeline is not ready."""
    phase = pb.STAGE_PHASE_READY if ready else pb.STAGE_PHASE_LOADING
    return pb.PipelineStatus(
        name=name,
        ready=ready,
        input_modalities=map(render_modality, takes),
        output_modalities=map(render_modality, makes),
        tasks=map(render_task, tasks),
        languages=languages,
        voices=voices,
        default_voice=voices[0] if voices else "",
        stages=[
            pb.StageStatus(
                stage=stage,
                ready_replicas=int(ready),
                replicas=[pb.ReplicaStatus(replica=f"{stage}-0", phase=phase, tensors_loaded=3, tensors_total=4)],
            )
            for stage in stages
        ],
    )
