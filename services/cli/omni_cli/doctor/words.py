"""Pure: the last words of a process. Ours say in one JSON object, or one sentence, why they end."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

_LONGEST = 300
# How the kubelet renders the error that a probe was answered with: omni_common.last_words.
_CANNOT = "code = FailedPrecondition desc = "
_ERRORS = frozenset({"ERROR", "CRITICAL"})
_ALWAYS = frozenset({"ts", "level", "service", "logger", "msg", "exception"})


def last_words(log: str) -> str:
    """The last error that it logged, else the last line."""
    lines = [line for line in log.splitlines() if line.strip()]
    records = [_record(line) for line in lines]
    for line, record in zip(reversed(lines), reversed(records), strict=True):
        if record.get("level") in _ERRORS or (not record and line.startswith("CannotStart")):
            return plain(_told(record, line))
    return plain(_told(records[-1], lines[-1])) if lines else ""


def why_it_cannot(probe: str) -> str:
    """Of what an event tells about a probe: the sentence of a process that cannot start, or nothing."""
    return plain(probe.partition(_CANNOT)[2])


def plain(text: str) -> str:
    """One line that a terminal only shows, not too long."""
    line = " ".join("".join("·" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _record(line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and "msg" in record else {}


def _told(record: Mapping[str, Any], line: str) -> str:
    if not record:
        return line
    message = str(record["msg"])
    if trace := str(record.get("exception", "")).strip():
        return f"{message}: {trace.splitlines()[-1]}"
    fields = ", ".join(f"{name} {value}" for name, value in record.items() if name not in _ALWAYS)
    return f"{message} ({fields})" if fields and not message.endswith(".") else message
