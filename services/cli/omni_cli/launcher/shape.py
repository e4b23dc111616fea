"""Pure: the pipelines as they are served here, with the user's replicas, colocations and processes.

A stage is named `STAGE` where only one of the pipelines has one of that name, and `PIPELINE/STAGE` anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from omni_cli.errors import CommandError
from omni_cli.launcher.plan import Served, Wishes
from omni_common.pipeline import PipelineConfig, StageConfig, check_processes, processes_of

# A pipeline's name and a stage's.
Place = tuple[str, str]


def shape(wishes: Wishes) -> tuple[Served, ...]:
    """What to serve, as wished. Raises CommandError for a stage that is not there, or that many pipelines have."""
    pipelines = {served.pipeline.name: served.pipeline for served in wishes.served}
    if len(pipelines) < len(wishes.served):
        raise CommandError("A pipeline is served once; for more processes give --replicas.")
    replicas = {_place(name, pipelines): number for name, number in wishes.replicas.items()}
    fits_together(wishes)
    groups = _groups("--colocate", [[_place(name, pipelines) for name in group] for group in wishes.colocate])
    processes = _groups("--together", [[_place(name, pipelines) for name in group] for group in wishes.together])
    if wishes.apart:
        everywhere = [(p.name, stage) for p in pipelines.values() for stage in p.by_name]
        groups, processes = {place: place[1] for place in everywhere}, dict.fromkeys(everywhere, "")
    tp = {_place(name, pipelines): number for name, number in wishes.tp.items()}
    wished = _Wished(replicas, tp, groups, processes)
    return tuple(replace(served, pipeline=_shaped(served.pipeline, wished)) for served in wishes.served)


def fits_together(wishes: Wishes) -> None:
    """Raises CommandError for wishes that contradict each other."""
    if wishes.apart and wishes.colocate:
        raise CommandError("--apart gives every stage a pod of its own; leave out --colocate.")
    if wishes.apart and wishes.together:
        raise CommandError("--apart gives every stage a pod of its own; leave out --together.")
    if wishes.encryption in {"tls", "aead"} and (bare := [name for name in wishes.transports if name != "tcp"]):
        raise CommandError(f"What goes by {' or '.join(bare)} cannot be encrypted; leave out --encryption or take tcp.")


@dataclass(frozen=True, slots=True)
class _Wished:
    """What is wished of single stages: how many, on how many GPUs each, with whom in a pod and in a process."""

    replicas: Mapping[Place, int]
    tp: Mapping[Place, int]
    groups: Mapping[Place, str]
    processes: Mapping[Place, str]


def _shaped(pipeline: PipelineConfig, wished: _Wished) -> PipelineConfig:
    stages = [_stage(pipeline.name, stage, wished) for stage in pipeline.stages]
    grouped = {name: _group(group, wished, pipeline.name) for name, group in processes_of(stages).items()}
    placed = tuple(
        stage.model_copy(
            update={"placement_group": grouped[stage.process_name] or stage.placement_group or stage.process_name}
        )
        for stage in stages
    )
    try:
        check_processes(placed)
    except ValueError as error:
        raise CommandError(f"Pipeline '{pipeline.name}' cannot be served so: {error}.") from error
    # Made anew: a copy would find stages by name as they were before.
    return PipelineConfig.model_validate({**pipeline.model_dump(), "stages": placed})


def _stage(pipeline: str, stage: StageConfig, wished: _Wished) -> StageConfig:
    place = (pipeline, stage.name)
    if wished.tp.get(place, 1) > 1 and not stage.tensor_parallel:
        raise CommandError(f"Stage '{stage.name}' runs on one GPU; leave out --tp {stage.name}={wished.tp[place]}.")
    return stage.model_copy(
        update={
            "replicas": wished.replicas.get(place, stage.replicas),
            "tp_size": wished.tp.get(place, stage.tp_size),
            "placement_group": wished.groups.get(place, stage.placement_group),
            "process": wished.processes.get(place, stage.process),
        }
    )


def _group(stages: Sequence[StageConfig], wished: _Wished, pipeline: str) -> str:
    """The pod of stages that share a process where nobody but --together says it; else empty."""
    together = any((pipeline, stage.name) in wished.processes for stage in stages)
    settled = any((pipeline, stage.name) in wished.groups for stage in stages)
    agreed = len({stage.placement_group or stage.name for stage in stages}) == 1
    return stages[0].process_name if together and not settled and not agreed else ""


def _groups(option: str, wished: Sequence[Sequence[Place]]) -> dict[Place, str]:
    """The placement group, or the process, of every stage that the option names."""
    groups: dict[Place, str] = {}
    for group in wished:
        if len({pipeline for pipeline, _ in group}) > 1:
            raise CommandError(f"Only stages of one pipeline send each other tensors; {option} takes no others.")
        for place in group:
            if place in groups:
                raise CommandError(f"Stage '{place[1]}' is in two {option} groups; it can be in one only.")
            groups[place] = "-".join(stage for _, stage in group)
    return groups


def _place(name: str, pipelines: Mapping[str, PipelineConfig]) -> Place:
    pipeline, slash, stage = name.rpartition("/")
    if slash:
        return _place_in(pipeline, stage, pipelines)
    having = [pipeline.name for pipeline in pipelines.values() if stage in pipeline.by_name]
    if len(having) > 1:
        spelled = " or ".join(f"{pipeline}/{stage}" for pipeline in having)
        raise CommandError(f"{len(having)} of the pipelines have a stage '{stage}': write {spelled}.")
    if not having:
        there = ". ".join(f"Pipeline '{p.name}' has {', '.join(p.by_name)}" for p in pipelines.values())
        raise CommandError(f"There is no stage '{stage}'. {there}.")
    return having[0], stage


def _place_in(pipeline: str, stage: str, pipelines: Mapping[str, PipelineConfig]) -> Place:
    if pipeline not in pipelines:
        raise CommandError(f"Pipeline '{pipeline}' is not served; {', '.join(pipelines)} would be.")
    if stage not in pipelines[pipeline].by_name:
        there = ", ".join(pipelines[pipeline].by_name)
        raise CommandError(f"Pipeline '{pipeline}' has no stage '{stage}'. It has {there}.")
    return pipeline, stage
