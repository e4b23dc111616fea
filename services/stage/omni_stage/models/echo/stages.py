"""Echo's stages: which scheduler runs each, and the hooks around it."""

from __future__ import annotations

from collections.abc import Callable

from omni_stage.models.echo import request_builders as build
from omni_stage.models.echo import routing
from omni_stage.models.echo.callbacks import Beeping, Writing
from omni_stage.models.echo.components.speaker import Speaker
from omni_stage.models.echo.config import PIPELINE
from omni_stage.models.echo.payload_types import PAYLOADS
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.ar import ArScheduler
from omni_stage.scheduler.contract import NewRequest
from omni_stage.scheduler.simple import SimpleScheduler
from omni_stage.scheduler.streaming import Session, StreamScheduler


def split(context: StageContext) -> StageProgram:
    return StageProgram(
        _simple(build.split, context),
        route=routing.after_split,
        project={"join": routing.outline_of, "upper": routing.words_of, "count": routing.files_of},
    )


def upper(context: StageContext) -> StageProgram:
    return StageProgram(_simple(build.upper, context))


def count(context: StageContext) -> StageProgram:
    return StageProgram(_simple(build.count, context))


def join(context: StageContext) -> StageProgram:
    return StageProgram(
        _simple(build.answer, context),
        needs=routing.awaited,
        merge=routing.join,
        route=routing.after_join,
        project={"say": routing.script_of, "beep": routing.scale_of},
    )


def say(context: StageContext) -> StageProgram:
    stage = context.stage
    scheduler = ArScheduler(Speaker(), stage=stage.name, max_running=stage.max_running, max_waiting=stage.max_waiting)
    return StageProgram(scheduler, stream_to=routing.say_streams)


def write(context: StageContext) -> StageProgram:
    return StageProgram(_streaming(Writing, context))


def beep(context: StageContext) -> StageProgram:
    return StageProgram(_streaming(Beeping, context))


FAMILY = ModelFamily(
    pipeline=PIPELINE,
    factories={
        "split": split,
        "upper": upper,
        "count": count,
        "join": join,
        "say": say,
        "write": write,
        "beep": beep,
    },
    payloads=PAYLOADS,
)


def _simple(compute: Callable[[NewRequest], object], context: StageContext) -> SimpleScheduler:
    return SimpleScheduler(compute, stage=context.stage.name, max_waiting=context.stage.max_waiting)


def _streaming(session: Callable[[NewRequest], Session], context: StageContext) -> StreamScheduler:
    stage = context.stage
    return StreamScheduler(session, stage=stage.name, max_running=stage.max_running, max_waiting=stage.max_waiting)
