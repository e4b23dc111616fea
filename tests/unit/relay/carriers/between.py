"""Two processes joined by a TCP connection, one of them the test's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from omni_common.arena.memory import Arena

MODULE = "tests.unit.relay.carriers.other_end"


class Process:
    """The other process. Connections are begun in it one after the other."""

    def __init__(self) -> None:
        # UCX would say what goes wrong among what the process is asked for.
        environment = {**os.environ, "UCX_LOG_FILE": "stderr"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", MODULE], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def says(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def tell(self, *words: object) -> None:
        assert self._child.stdin is not None
        print(*words, file=self._child.stdin, flush=True)

    def stop(self) -> None:
        """It does nothing any more, as if its machine hung."""
        self._child.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._child.kill()

    def end(self) -> None:
        with self._child:
            self._child.kill()


@dataclass(frozen=True)
class OtherEnd:
    """One connection, and the other process's arena as this one sees it."""

    process: Process
    sock: socket.socket
    folder: Path

    @contextmanager
    def arena(self) -> Iterator[Arena]:
        arena = Arena.adopt(self.folder, (self.folder / "arena").stat().st_size)
        assert arena is not None
        try:
            yield arena
        finally:
            arena.close()


@dataclass(frozen=True)
class Role:
    """What the other process is to be. `timeout` in seconds, `size` that of its arena."""

    name: str
    carrier: str
    size: int
    timeout: float


@contextmanager
def connected(process: Process, role: Role, folder: Path) -> Iterator[OtherEnd]:
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        process.tell(role.name, role.carrier, folder, role.size, server.getsockname()[1], role.timeout)
        sock, _ = server.accept()
    with sock:
        yield OtherEnd(process, sock, folder)


class Doing:
    """A call in a thread of its own: how it ended, and how long it took."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0
        self._call = call
        self._began = monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            self.error = error
        self.seconds = monotonic() - self._began

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still waiting after {timeout} s"
