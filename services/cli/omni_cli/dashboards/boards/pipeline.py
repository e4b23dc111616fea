"""Where the time of a request goes, and which stage is short of replicas."""

from __future__ import annotations

from omni_cli.dashboards.panels import Board, Kind, Panel, Query, Row, p95
from omni_cli.dashboards.promql import mean, most, rate, select, total

_STAGE = ("pipeline", "stage")
_NAME = "{{pipeline}} {{stage}}"


def _saturation(used: str, limit: str) -> str:
    return f"{total(used, *_STAGE)} / {total(limit, *_STAGE)}"


WATERFALL = Row(
    "Waterfall",
    (
        Panel(
            title="Mean wait in each stage",
            says="From a request's arrival in the stage to its first step there. Stages run side by side, so that "
            "these times do not add up to a request's.",
            queries=(Query(mean("omni_stage_queue_seconds", *_STAGE), _NAME),),
            unit="s",
            kind=Kind.BARS,
        ),
        Panel(
            title="Mean work in each stage",
            says="From a request's first step in the stage to its end there, with the waits between steps.",
            queries=(Query(mean("omni_stage_running_seconds", *_STAGE), _NAME),),
            unit="s",
            kind=Kind.BARS,
        ),
        Panel(
            title="Mean step of each stage",
            says="One run of its model.",
            queries=(Query(mean("omni_stage_step_seconds", *_STAGE), _NAME),),
            unit="s",
            kind=Kind.BARS,
        ),
        Panel(
            title="Wait in a stage, p95",
            says="From a request's arrival in the stage to its first step there.",
            queries=p95("omni_stage_queue_seconds", *_STAGE),
            unit="s",
        ),
        Panel(
            title="Work in a stage, p95",
            says="From a request's first step in the stage to its end there.",
            queries=p95("omni_stage_running_seconds", *_STAGE),
            unit="s",
        ),
        Panel(
            title="Step, p95",
            says="One run of the stage's model.",
            queries=p95("omni_stage_step_seconds", *_STAGE),
            unit="s",
        ),
    ),
)

LOAD = Row(
    "Load",
    (
        Panel(
            title="Requests that wait",
            says="For a place in a batch.",
            queries=(Query(total("omni_stage_waiting", *_STAGE), _NAME),),
        ),
        Panel(
            title="Oldest that waits",
            says="How long the oldest request or chunk that could be worked on has waited for that. Replicas are "
            "scaled by it.",
            queries=(Query(most("omni_stage_oldest_waiting_seconds", *_STAGE), _NAME),),
            unit="s",
        ),
        Panel(
            title="Queue in use",
            says="Requests that wait, over those that may. At 1 the stage refuses.",
            queries=(Query(_saturation("omni_stage_waiting", "omni_stage_max_waiting"), _NAME),),
            unit="percentunit",
            most=1,
        ),
        Panel(
            title="Places in use",
            says="Requests that run, over those that may.",
            queries=(Query(_saturation("omni_stage_running", "omni_stage_max_running"), _NAME),),
            unit="percentunit",
        ),
        Panel(
            title="Requests in a step, mean",
            says="How full the batches are.",
            queries=(Query(mean("omni_stage_batch_size", *_STAGE), _NAME),),
        ),
        Panel(
            title="Requests held",
            says="Waiting, running, or with an answer on its way out.",
            queries=(Query(total("omni_stage_live_requests", *_STAGE), _NAME),),
        ),
    ),
)

HEALTH = Row(
    "Health",
    (
        Panel(
            title="Ready replicas",
            says="Replicas that take work, as the coordinators see them.",
            queries=(Query(most("omni_ready_replicas", *_STAGE), _NAME),),
        ),
        Panel(
            title="Failed requests",
            says="By stage and reason.",
            queries=(Query(rate("omni_stage_failures_total", *_STAGE, "reason"), f"{_NAME} {{{{reason}}}}"),),
            unit="reqps",
        ),
        Panel(
            title="Pauses",
            says="Times that a request's way out was full and its work stopped for that: the next stage, or the "
            "caller, is slower.",
            queries=(Query(rate("omni_pauses_total", *_STAGE), _NAME),),
            unit="ops",
        ),
        Panel(
            title="Late events",
            says="What came for requests that were over. A few follow every abort.",
            queries=(Query(rate("omni_late_events_total", *_STAGE), _NAME),),
            unit="ops",
        ),
        Panel(
            title="Processes that serve",
            says="1 for each that takes work.",
            queries=(Query(select("omni_serving"), "{{instance}}"),),
            most=1,
        ),
        Panel(
            title="Event loop lag, p95",
            says="How late the processes of a pipeline run what is due.",
            queries=p95("omni_event_loop_lag_seconds", "pipeline"),
            unit="s",
        ),
    ),
)

STAGES = Board(
    "omni-pipeline",
    "omni / Pipeline",
    "Each stage of a pipeline: how long requests wait and work there, how full it is, what goes wrong.",
    (WATERFALL, LOAD, HEALTH),
)
