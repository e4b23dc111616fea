"""Pure: how a pipeline's callers fare, as gateways and coordinators count it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni_cli.top.change import Change, Snapshot, answering
from omni_common.telemetry import names

# Gateways and coordinators serve all pipelines.
_OF_ALL = ""


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """Times are means in seconds, None where nothing was ever timed. `rtf`: time to make speech over its length.
    `ready`: replicas that take work, of the stage that has the fewest; None where no coordinator is seen."""

    pipeline: str
    live: int
    requests_per_second: float
    refused: int
    first_output: float | None
    first_audio: float | None
    rtf: float | None
    ready: int | None


def pipeline_rows(now: Snapshot, change: Change) -> Sequence[PipelineRow]:
    """Of every pipeline that a gateway or a coordinator has heard of."""
    pages = [page for seen, page in answering(now) if seen.pipeline == _OF_ALL]
    known = ((names.READY_REPLICAS, ""), (names.FIRST_OUTPUT_SECONDS, "count"))
    found = {labels["pipeline"] for page in pages for metric, part in known for labels, _ in page.of(metric, part)}
    return [_row(pipeline, now, change) for pipeline in sorted(found)]


def _row(pipeline: str, now: Snapshot, change: Change) -> PipelineRow:
    of = {"pipeline": pipeline}
    return PipelineRow(
        pipeline,
        live=int(change.now(_OF_ALL, names.LIVE_REQUESTS, of)),
        requests_per_second=change.rate(_OF_ALL, names.REQUESTS, of),
        refused=int(change.now(_OF_ALL, names.ADMISSION_REFUSALS, of)),
        first_output=change.mean(_OF_ALL, names.FIRST_OUTPUT_SECONDS, of),
        first_audio=change.mean(_OF_ALL, names.FIRST_AUDIO_SECONDS, of),
        rtf=change.mean(_OF_ALL, names.AUDIO_RTF, of),
        ready=_ready(pipeline, now),
    )


def _ready(pipeline: str, now: Snapshot) -> int | None:
    """Each coordinator knows all replicas that it hears of; the one that knows most is believed."""
    stages: dict[str, int] = {}
    for _, page in answering(now):
        for labels, value in page.of(names.READY_REPLICAS):
            if labels["pipeline"] == pipeline:
                stages[labels["stage"]] = max(stages.get(labels["stage"], 0), int(value))
    return min(stages.values(), default=None)
