"""Pure: what a request cost each stage of a pipeline, from the pages of its processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from omni_cli.capacity.sizing import StageCost, StageShape
from omni_cli.top.change import Seen, Snapshot
from omni_cli.top.exposition import Metric, Page
from omni_common.pipeline import PipelineConfig
from omni_common.telemetry import names

# Stages on a GPU of one pod have it together: it cannot be given to two containers.
_GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one pipeline. `audio_seconds` made for a request, None where nobody counted them."""

    pipeline: str
    requests: float
    audio_seconds: float | None
    shapes: Sequence[StageShape]
    costs: Mapping[str, StageCost]


def pipelines_in(snapshot: Snapshot) -> list[str]:
    return sorted({seen.pipeline for seen in snapshot.processes if seen.pipeline and seen.page is not None})


def measured(snapshot: Snapshot, before: Snapshot | None, pipeline: str, config: PipelineConfig | None) -> Measured:
    """Since the processes began, or since `before`. `config`: what is declared, where that is known."""
    counts = _Counts(snapshot, before, pipeline)
    shapes = _shapes(snapshot, pipeline, config)
    visits = {s.stage: counts.of_pipeline(names.STAGE_RUNNING_SECONDS, "count", stage=s.stage) for s in shapes}
    # Where no coordinator is seen, the stage that most requests were in is the one that all of them were in.
    requests = counts.everywhere(names.REQUESTS, pipeline=pipeline) or max(visits.values(), default=0.0)
    audio = counts.everywhere(names.AUDIO_SECONDS, pipeline=pipeline, direction="out")
    costs = {stage: _cost(counts, stage, visited, requests) for stage, visited in visits.items() if visited}
    return Measured(pipeline, requests, audio / requests if audio and requests else None, shapes, costs)


def _cost(counts: _Counts, stage: str, visits: float, requests: float) -> StageCost:
    steps = counts.of_pipeline(names.STAGE_STEP_SECONDS, "count", stage=stage)
    in_steps = counts.of_pipeline(names.STAGE_BATCH_SIZE, "sum", stage=stage)
    return StageCost(
        busy=counts.of_pipeline(names.STAGE_STEP_SECONDS, "sum", stage=stage) / requests,
        held=counts.of_pipeline(names.STAGE_RUNNING_SECONDS, "sum", stage=stage) / requests,
        steps=in_steps / visits,
        batch=in_steps / steps if steps else 1.0,
    )


def _shapes(snapshot: Snapshot, pipeline: str, config: PipelineConfig | None) -> list[StageShape]:
    """The declared stages; where a process says that its pod is of another group, that holds."""
    seen = {stage: process for process in _of(snapshot, pipeline) for stage in _stages(process)}
    if config is None:
        return [StageShape(stage, process.group or stage, process.name) for stage, process in sorted(seen.items())]
    return [
        StageShape(
            stage.name,
            (seen[stage.name].group if stage.name in seen else "") or stage.placement_group or stage.name,
            _GPU if stage.gpu else stage.process_name,
            stage.max_running,
        )
        for stage in config.stages
    ]


def _of(snapshot: Snapshot, pipeline: str) -> Iterable[Seen]:
    return (seen for seen in snapshot.processes if seen.pipeline == pipeline and seen.page is not None)


def _stages(process: Seen) -> set[str]:
    return {labels["stage"] for labels, _ in process.page.of(names.STAGE_LIVE_REQUESTS)} if process.page else set()


class _Counts:
    """Sums over processes, less what they were before; one that began anew counts from nothing."""

    def __init__(self, snapshot: Snapshot, before: Snapshot | None, pipeline: str) -> None:
        earlier = {} if before is None else {seen.name: seen.page for seen in before.processes}
        self._pipeline = pipeline
        self._pairs = [(seen, seen.page, earlier.get(seen.name)) for seen in snapshot.processes if seen.page]

    def of_pipeline(self, metric: Metric, part: str, **labels: str) -> float:
        return self._sum(metric, part, labels, pipeline=self._pipeline)

    def everywhere(self, metric: Metric, **labels: str) -> float:
        return self._sum(metric, "", labels)

    def _sum(self, metric: Metric, part: str, labels: Mapping[str, str], pipeline: str | None = None) -> float:
        def total(page: Page) -> float:
            return page.total(metric, part, **labels)

        return sum(
            now if before is None or total(before) > now else now - total(before)
            for seen, page, before in self._pairs
            if pipeline in {None, seen.pipeline}
            for now in (total(page),)
        )
