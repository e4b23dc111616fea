"""The processes of a measurement as the one that leads it has them: pinned, on their node, and gone when it ends."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import IO

from tests.lab.netns import Node
from tests.load.relay.rounds import Round, Seconds

# The slowest round of the slowest way takes seconds.
_DEADLINE = 120.0
_GRACE = 5.0


class Side(Enum):
    """Of a transfer. Everything of one side runs on one core, if there are two: as on two machines, what one side
    does costs the other no time, and no scheduler decides anew in each run."""

    SENDER = 0
    RECEIVER = -1

    @property
    def core(self) -> int:
        return sorted(os.sched_getaffinity(0))[self.value]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs: on a node of a wire, or on this machine as it is."""

    side: Side
    node: Node | None = None

    @property
    def address(self) -> str:
        return self.node.address if self.node else "127.0.0.1"

    def command(self, *command: str) -> list[str]:
        pinned = ["taskset", "--cpu-list", str(self.side.core), *command]
        return self.node.command(*pinned) if self.node else pinned


class Worker:
    """A process of this package. `line` is the first that it printed."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._input: IO[str] = process.stdin
        self._output: IO[str] = process.stdout
        self._name = name
        self.line = self._read()

    def measure(self, round_: Round) -> Seconds:
        """Raises ChildProcessError if it ends instead of answering, or does not answer in time."""
        print(round_.render(), file=self._input, flush=True)
        return [float(seconds) for seconds in json.loads(self._read())]

    def _read(self) -> str:
        # Nothing is buffered between two answers: there is one line for each question.
        if not select.select([self._output], [], [], _DEADLINE)[0]:
            raise ChildProcessError(f"{self._name} did not answer within {_DEADLINE:g} s")
        line = self._output.readline().strip()
        if not line:
            raise ChildProcessError(f"{self._name} ended instead of answering")
        return line


@contextmanager
def worker(place: Place, module: str, *arguments: str) -> Iterator[Worker]:
    """Runs `python -m module` there."""
    with running(place, [sys.executable, "-m", module, *arguments]) as process:
        yield Worker(process, module)


@contextmanager
def running(
    place: Place, command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Runs a command there for as long as the context lasts; None for `environment` is this process's."""
    process = subprocess.Popen(
        place.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def processor_seconds(pid: int) -> float:
    """What all threads of a process have used, to the nanosecond: its clock, as clock_getcpuclockid(3) numbers it."""
    return time.clock_gettime((~pid << 3) | 2)
