"""What a process wrote last, for people to read."""

from __future__ import annotations

import json
import os
from pathlib import Path

_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 12
# A log may be in memory; what a process wrote in an earlier life is worth this much of it.
_KEPT_BYTES = 8 * 1024 * 1024


def begin_life(log: Path) -> int:
    """Makes room in the log of a process that is about to start; says where its own lines will begin."""
    if not log.exists():
        return 0
    size = log.stat().st_size
    if size <= _KEPT_BYTES:
        return size
    os.truncate(log, 0)
    return 0


def last_lines(log: Path, since: int = 0) -> tuple[str, ...]:
    """The end of a log, at most a dozen lines; our own JSON lines as plain text."""
    if not log.exists():
        return ()
    with log.open("rb") as file:
        file.seek(max(since, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    plain = [line for entry in lines for line in _plain(entry).splitlines() if line.strip()]
    return tuple(plain[-_TAIL_LINES:])


def _plain(line: str) -> str:
    """A traceback in a JSON log line is unreadable until its newlines are newlines."""
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return line
    parts = (entry.get(key) for key in ("level", "msg", "exception"))
    return " ".join(str(part) for part in parts if part)
