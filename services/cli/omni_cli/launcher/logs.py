"""What processes write: to a file each, of which people read the end, or to the terminal as it comes.

For the terminal, the log is a named pipe: whoever starts a process need not know the difference.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 12
_PIPE_BYTES = 1 << 16  # all that a pipe holds
_NOT_ABOUT = {"ts", "level", "msg", "exception", "logger", "service"}
# A log may be in memory; what a process wrote in an earlier life is worth this much of it.
_KEPT_BYTES = 8 * 1024 * 1024


def log_of(logs: Path, process: str) -> Path:
    return logs / f"{process}.log"


def begin_life(log: Path) -> int:
    """Makes room in the log of a process that is about to start; says where its own lines will begin."""
    if not log.is_file():
        return 0
    size = log.stat().st_size
    if size <= _KEPT_BYTES:
        return size
    os.truncate(log, 0)
    return 0


def last_lines(log: Path, since: int = 0) -> tuple[str, ...]:
    """The end of a log, at most a dozen lines; our own JSON lines as plain text. Of a process that said in a sentence
    why it ends, that sentence. Of a pipe, none: they were printed."""
    if not log.is_file():
        return ()
    with log.open("rb") as file:
        file.seek(max(since, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    if lines and (sentence := _sentence(lines[-1])):
        return (sentence,)
    plain = [line for entry in lines for line in _plain(entry).splitlines() if line.strip()]
    return tuple(plain[-_TAIL_LINES:])


@asynccontextmanager
async def printed(logs: Path, processes: Iterable[str], say: Callable[[str], None]) -> AsyncIterator[None]:
    """Inside, `say` gets every line that the processes write to their logs, with the process's name before it."""
    reading = anyio.CancelScope(shield=True)  # a process that is told to stop must not wait for room in its pipe
    with ExitStack() as stack:
        pipes = {f"{name} | ": stack.enter_context(_pipe(log_of(logs, name))) for name in processes}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_print_pipes, pipes, say, reading)
            try:
                yield
            finally:
                reading.cancel()


async def _print_pipes(pipes: Mapping[str, int], say: Callable[[str], None], reading: anyio.CancelScope) -> None:
    with reading:
        async with anyio.create_task_group() as readers:
            for before, pipe in pipes.items():
                readers.start_soon(_print_pipe, pipe, before, say)


@contextmanager
def _pipe(path: Path) -> Iterator[int]:
    os.mkfifo(path, 0o600)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # a writer too, or it would end with each process
    try:
        yield pipe
    finally:
        os.close(pipe)


async def _print_pipe(pipe: int, before: str, say: Callable[[str], None]) -> None:
    rest = b""
    try:
        while True:
            await anyio.wait_readable(pipe)
            rest = _print(rest + _read(pipe), before, say)
    finally:
        # The processes have ended: what they wrote last is here by now.
        _print(rest + _read(pipe) + b"\n", before, say)


def _print(data: bytes, before: str, say: Callable[[str], None]) -> bytes:
    """The whole lines; returns what is left."""
    *lines, rest = data.split(b"\n")
    for line in filter(None, lines):
        say(before + line.decode(errors="replace"))
    return rest


def _read(pipe: int) -> bytes:
    with suppress(BlockingIOError):  # it is empty
        return os.read(pipe, _PIPE_BYTES)
    return b""


def _sentence(line: str) -> str:
    """Of an error that is told without a traceback."""
    entry = _entry(line)
    return str(entry.get("msg", "")) if entry.get("level") == "ERROR" and "exception" not in entry else ""


def _plain(line: str) -> str:
    """A traceback in a JSON log line is unreadable until its newlines are newlines. What the line is about is shown,
    too: a message alone may be of anything."""
    entry = _entry(line)
    if not entry:
        return line
    parts = (entry.get(key) for key in ("level", "msg"))
    about = (f"{key}={value}" for key, value in entry.items() if key not in _NOT_ABOUT and value not in ("", None))
    return " ".join(str(part) for part in (*parts, *about, entry.get("exception")) if part)


def _entry(line: str) -> Mapping[str, Any]:
    """Empty where the line is not one of ours."""
    with suppress(json.JSONDecodeError):
        if isinstance(entry := json.loads(line), dict):
            return entry
    return {}
