"""Logs: one JSON object a line, with the facts of the task it comes from."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest

from omni_common.telemetry.logs import JsonFormatter, bound


def line(message: str, **extra: object) -> dict[str, Any]:
    record = logging.getLogger("omni.test").makeRecord(
        "omni.test", logging.INFO, __file__, 1, message, (), None, extra=extra
    )
    return dict(json.loads(JsonFormatter("stage").format(record)))


def test_a_record_is_one_line_with_its_fields() -> None:
    written = line("request ended", outcome="completed", seconds=1.5)
    assert written.pop("ts").endswith("+00:00")
    assert written == {
        "level": "INFO",
        "service": "stage",
        "logger": "omni.test",
        "msg": "request ended",
        "outcome": "completed",
        "seconds": 1.5,
    }


def test_newlines_and_odd_values_stay_inside_the_line() -> None:
    record = logging.makeLogRecord({"msg": "a\nb", "what": object})
    assert "\n" not in JsonFormatter("stage").format(record)


def test_an_exception_is_told_with_its_traceback() -> None:
    try:
        int("wrong")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (type(error), error, error.__traceback__)})
    assert "ValueError: invalid literal" in json.loads(JsonFormatter("stage").format(record))["exception"]


@pytest.mark.anyio
async def test_bound_fields_follow_the_task_and_end_with_their_block() -> None:
    seen: dict[str, dict[str, Any]] = {}

    async def task(name: str) -> None:
        with bound(stage=name):
            await anyio.lowlevel.checkpoint()
            seen[name] = line("step")

    with bound(request_id="r1"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task, "thinker")
            tasks.start_soon(task, "talker")
    assert {name: (record["request_id"], record["stage"]) for name, record in seen.items()} == {
        "thinker": ("r1", "thinker"),
        "talker": ("r1", "talker"),
    }
    assert "request_id" not in line("later")
