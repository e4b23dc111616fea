"""A test's end of a stage in a process of its own (see `tests.lab.stage_process`)."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.nursery import Forked, Nursery
from tests.lab.pods import eventually

from omni_common.testing.mail import PATIENCE

_PACKET = 1 << 16


class StageProcess:
    """It lives until it is killed, or its line is closed."""

    def __init__(self, name: str, process: Forked, line: socket.socket) -> None:
        self.name = name
        self.process = process
        self._line = line
        self._waiting: deque[dict[str, Any]] = deque()
        line.settimeout(PATIENCE)

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self, kind: str, **facts: object) -> dict[str, Any]:
        """The next that it tells of that kind with those facts; the others stay. Raises TimeoutError."""
        for message in self._waiting:
            if _is(message, kind, facts):
                self._waiting.remove(message)
                return message
        while not _is(message := json.loads(self._line.recv(_PACKET) or b'{"kind": "gone"}'), kind, facts):
            assert message["kind"] != "gone", "the stage has ended"
            self._waiting.append(message)
        return message

    def say(self, do: str, **how: object) -> None:
        self._line.send(json.dumps({"do": do, **how}).encode())

    def push(self, to: str, consumer: str, size: int, request: str, seconds: float = PATIENCE) -> None:
        self.say("push", to=to, consumer=consumer, size=size, request=request, seconds=seconds)

    def ended(self, request: str) -> dict[str, Any]:
        """How its push of that request ended, waiting for it."""
        return self.hear("ended", request=request)

    def pushes(self, to: str, consumer: str, size: int = 1000) -> bool:
        """Whether a tensor gets there."""
        self.push(to, consumer, size, "try")
        return self.ended("try")["reason"] is None

    def load(self, to: str, consumer: str, sizes: Sequence[int], lanes: int) -> None:
        """Pushes from now on, on each lane one after the other."""
        self.say("load", to=to, consumer=consumer, sizes=sizes, lanes=lanes)

    def report(self) -> Mapping[str, Any]:
        self.say("report")
        return self.hear("report")

    def until(self, true: Callable[[Mapping[str, Any]], bool], what: str, seconds: float = PATIENCE) -> None:
        """Waits until that can be said of its report."""
        eventually(lambda: true(self.report()), what, seconds)

    def until_idle(self) -> None:
        """Stops its loads, and waits until it holds nothing."""
        self.say("stop")
        self.say("keep", count=0)
        held = ("leases", "in_use", "pushing", "arrived")
        self.until(lambda report: not any(report[name] for name in held), "a stage holds on to something")

    def kill(self) -> None:
        self.process.kill()
        self._line.close()


def _is(message: Mapping[str, Any], kind: str, facts: Mapping[str, object]) -> bool:
    return message["kind"] == kind and facts.items() <= message.items()


def start_stage(nursery: Nursery, folder: Path, name: str, neighbours: socket.socket | None = None) -> StageProcess:
    """Its first words are still to come."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        files = [theirs] if neighbours is None else [theirs, neighbours]
        pid, handle = nursery.fork({"stage": name, "folder": str(folder)}, *files)
    return StageProcess(name, Forked(pid, handle), ours)


@contextmanager
def stage(nursery: Nursery, folder: Path, name: str, neighbours: socket.socket | None = None) -> Iterator[StageProcess]:
    """One that has a line to its relay."""
    made = start_stage(nursery, folder, name, neighbours)
    try:
        made.hear("ready")
        yield made
    finally:
        made.kill()


def meeting_place() -> socket.socket:
    """Where the stages of a pod find a stage that gets it as its `neighbours`."""
    place = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    place.bind("")
    place.listen(16)
    return place


def go_to(place: socket.socket) -> socket.socket:
    """The way there, for a stage that gets it as its `neighbours`."""
    way = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    way.connect(place.getsockname())
    return way
