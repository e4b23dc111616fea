"""Logs are events: one JSON object a line, its message a constant, its facts in fields.

with bound(request_id=key.request_id, stage="thinker"):
    logger.info("request ended", extra={"outcome": "completed", "seconds": 1.2})
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from omni_common.errors import OmniError

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default={})  # noqa: B039  # replaced, never changed
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Adds fields to every record of this task and the tasks it starts: request_id, stage, trace_id."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "msg": record.getMessage(),
            **_bound.get(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = _told(record.exc_info[1])
        return json.dumps(line, default=str, ensure_ascii=False)


# Those whose words are about code, machines or files. Others, such as ValueError and KeyError, quote what they were
# given, which may be a caller's: of them the traceback tells the kind and the place.
_TELLING = (
    OmniError,
    ArithmeticError,
    AttributeError,
    ImportError,
    IndexError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
)


def _told(error: BaseException | None) -> str:
    """The traceback, from the first cause on."""
    told: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        words = f": {error}" if isinstance(error, _TELLING) else ""
        told.append("".join([*traceback.format_tb(error.__traceback__), kind + words]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nand from this:\n".join(reversed(told))


def configure_logs(level: str, *, service: str) -> None:
    """Sends all of this process's records to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
