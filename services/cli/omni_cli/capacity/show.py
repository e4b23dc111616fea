"""The command itself: looks at a mesh, and says how much of it a load needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anyio

from omni_cli.capacity.measured import Measured, measured, pipelines_in
from omni_cli.capacity.sizing import Load, Need, needs
from omni_cli.capacity.words import sentences, values
from omni_cli.errors import CommandError
from omni_cli.top.change import Snapshot
from omni_cli.top.source import Source
from omni_common.pipeline import PipelineConfig
from omni_stage.models import families, load_pipeline_config


@dataclass(frozen=True, slots=True)
class Target:
    """What is planned for. `audio_seconds`: the mean of an answer's; None: as long as the measured ones."""

    requests_per_second: float
    audio_seconds: float | None
    utilisation: float


async def plan(source: Source, target: Target, *, pipeline: str | None, over: float) -> None:
    """`over`: seconds to measure for; 0: what was measured since the processes began. Raises CommandError."""
    before = None
    snapshot = _named(await source.look(), pipeline)
    if over:
        before = snapshot
        await anyio.sleep(over)
        snapshot = _named(await source.look(), pipeline)
    found = [measured(snapshot, before, name, _declared(name)) for name in _chosen(snapshot, pipeline)]
    used = [one for one in found if one.requests]
    if not used:
        raise CommandError(
            "No request has been measured. Send some that are like those that you plan for, then plan again."
        )
    if target.audio_seconds is not None and not any(one.audio_seconds for one in used):
        raise CommandError(
            f"No audio was made by {', '.join(one.pipeline for one in used)}, so that --audio-seconds cannot be "
            "compared with anything. Send requests that are answered by voice, or leave it out."
        )
    plans: dict[str, Sequence[Need]] = {}
    for one in used:
        load = _load(one, target)
        plans[one.pipeline] = needs(one.shapes, one.costs, load)
        print("\n".join(sentences(one, load, plans[one.pipeline])))
    print(f"\n{_values(plans)}")


def _named(snapshot: Snapshot, pipeline: str | None) -> Snapshot:
    """Addresses do not say of which pipeline they are; the one that is named is theirs."""
    if pipeline is None or pipelines_in(snapshot):
        return snapshot
    return replace(snapshot, processes=[replace(seen, pipeline=pipeline) for seen in snapshot.processes])


def _values(plans: Mapping[str, Sequence[Need]]) -> str:
    return f"# Values for the chart: save them to a file, and helm upgrade ... --values FILE\n{values(plans)}"


def _chosen(snapshot: Snapshot, pipeline: str | None) -> list[str]:
    there = pipelines_in(snapshot)
    if pipeline is None:
        if not there:
            raise CommandError("The processes do not say of which pipeline they are: name it with --pipeline.")
        return there
    if there and pipeline not in there:
        raise CommandError(f"There is no pipeline {pipeline}; there are {', '.join(there)}.")
    return [pipeline]


def _declared(pipeline: str) -> PipelineConfig | None:
    """A pipeline that is no family's by its name is known by what its processes tell."""
    return load_pipeline_config(pipeline) if pipeline in families() else None


def _load(one: Measured, target: Target) -> Load:
    """Answers without audio are as long as they were."""
    stretch = target.audio_seconds / one.audio_seconds if target.audio_seconds and one.audio_seconds else 1.0
    return Load(target.requests_per_second, stretch, target.utilisation)
