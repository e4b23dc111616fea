"""Pure: the pipelines as they are served here, with the user's replicas and colocations.

A stage is named `STAGE` where only one of the pipelines has one of that name, and `PIPELINE/STAGE` anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from omni_cli.errors import CommandError
from omni_cli.launcher.plan import Served, Wishes
from omni_common.pipeline import PipelineConfig

# A pipeline's name and a stage's.
Place = tuple[str, str]


def shape(wishes: Wishes) -> tuple[Served, ...]:
    """What to serve, as wished. Raises CommandError for a stage that is not there, or that many pipelines have."""
    pipelines = {served.pipeline.name: served.pipeline for served in wishes.served}
    if len(pipelines) < len(wishes.served):
        raise CommandError("A pipeline is served once; for more processes give --replicas.")
    replicas = {_place(name, pipelines): number for name, number in wishes.replicas.items()}
    fits_together(wishes)
    groups = _groups([[_place(name, pipelines) for name in group] for group in wishes.colocate])
    if wishes.apart:
        groups = {(p.name, stage): stage for p in pipelines.values() for stage in p.by_name}
    return tuple(replace(served, pipeline=_shaped(served.pipeline, replicas, groups)) for served in wishes.served)


def fits_together(wishes: Wishes) -> None:
    """Raises CommandError for wishes that contradict each other."""
    if wishes.apart and wishes.colocate:
        raise CommandError("--apart gives every stage a pod of its own; leave out --colocate.")
    if wishes.encryption in {"tls", "aead"} and (bare := [name for name in wishes.transports if name != "tcp"]):
        raise CommandError(f"What goes by {' or '.join(bare)} cannot be encrypted; leave out --encryption or take tcp.")


def _shaped(pipeline: PipelineConfig, replicas: Mapping[Place, int], groups: Mapping[Place, str]) -> PipelineConfig:
    stages = tuple(
        stage.model_copy(
            update={
                "replicas": replicas.get((pipeline.name, stage.name), stage.replicas),
                "placement_group": groups.get((pipeline.name, stage.name), stage.placement_group) or stage.name,
            }
        )
        for stage in pipeline.stages
    )
    return pipeline.model_copy(update={"stages": stages})


def _groups(colocate: Sequence[Sequence[Place]]) -> dict[Place, str]:
    """The placement group of every stage that a --colocate names."""
    groups: dict[Place, str] = {}
    for group in colocate:
        if len({pipeline for pipeline, _ in group}) > 1:
            raise CommandError("Only stages of one pipeline send each other tensors; --colocate takes no others.")
        for place in group:
            if place in groups:
                raise CommandError(f"Stage '{place[1]}' is in two --colocate groups; it can share one pod only.")
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
