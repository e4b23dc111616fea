"""What a pipeline can do and whether it can do it now, as the messages have it."""

from __future__ import annotations

from collections.abc import Sequence

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import InvalidRequest
from omni_common.rpc.convert import render_modality, render_task
from omni_coordinator.core.bindings import Phase, Replica
from omni_coordinator.core.roster import PipelineState

_PHASES = {
    Phase.STARTING: pb.STAGE_PHASE_STARTING,
    Phase.LOADING: pb.STAGE_PHASE_LOADING,
    Phase.WARMING_UP: pb.STAGE_PHASE_WARMING_UP,
    Phase.READY: pb.STAGE_PHASE_READY,
    Phase.DRAINING: pb.STAGE_PHASE_DRAINING,
}
_PHASE_OF = {number: phase for phase, number in _PHASES.items()}


def parse_phase(number: pb.StagePhase.ValueType) -> Phase:
    try:
        return _PHASE_OF[number]
    except KeyError:
        raise InvalidRequest(f"Phase {number} is not one that this coordinator knows.") from None


def render_pipeline(state: PipelineState, *, taking: bool) -> pb.PipelineStatus:
    """`taking`: the coordinator takes new requests; a pipeline is not ready through one that does not."""
    config = state.config
    return pb.PipelineStatus(
        name=config.name,
        ready=taking and state.ready,
        input_modalities=sorted(map(render_modality, config.input_modalities)),
        output_modalities=sorted(map(render_modality, config.output_modalities)),
        voices=config.voices,
        default_voice=config.default_voice,
        tasks=sorted(map(render_task, config.tasks)),
        languages=config.languages,
        stages=[_render_stage(stage, replicas) for stage, replicas in state.stages.items()],
    )


def _render_stage(stage: str, replicas: Sequence[Replica]) -> pb.StageStatus:
    return pb.StageStatus(
        stage=stage,
        ready_replicas=sum(replica.phase is Phase.READY for replica in replicas),
        replicas=[
            pb.ReplicaStatus(
                replica=replica.name,
                pod=replica.pod,
                phase=_PHASES[replica.phase],
                tensors_loaded=replica.tensors_loaded,
                tensors_total=replica.tensors_total,
            )
            for replica in replicas
        ],
    )
