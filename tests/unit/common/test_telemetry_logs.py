"""Logs: one JSON object a line, with the facts of the task it comes from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
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


def told(call: Callable[[], object]) -> str:
    """What the log says of the exception that comes out of this call."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever it is
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (type(error), error, error.__traceback__)})
    return str(json.loads(JsonFormatter("stage").format(record))["exception"])


def test_an_exception_is_told_with_its_traceback() -> None:
    text = told(lambda: 1 // 0)
    assert "in <lambda>" in text
    assert text.endswith("ZeroDivisionError: integer division or modulo by zero")


def test_exceptions_do_not_quote_what_callers_sent() -> None:
    def fail() -> None:
        words = "se" + "cret"
        try:
            int(words)
        except ValueError:
            raise RuntimeError("the step failed") from None

    text = told(fail)
    assert text.endswith("RuntimeError: the step failed")
    assert "secret" not in text

    def chained() -> None:
        try:
            int("se" + "cret")
        except ValueError as error:
            raise RuntimeError("the step failed") from error

    text = told(chained)
    assert text.index("ValueError") < text.index("and from this:") < text.index("RuntimeError: the step failed")
    assert "secret" not in text


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
