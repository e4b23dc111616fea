"""How the launcher starts one process and holds on to it: by fork from the warm server, or as a fresh interpreter."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from omni_cli.launcher import child
from omni_cli.launcher.logs import last_lines, log_of
from omni_cli.launcher.plan import ProcessSpec

_MAX_ANSWER = 4096
_EXIT_BOUND = 5.0  # seconds for a process that has nothing left to do


class Process(Protocol):
    """A started process."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Its exit code; negative for a signal. Has no deadline of its own: a process runs as long as it is wanted."""
        ...

    async def signal(self, number: signal.Signals) -> None:
        """To it and to what it started. Nothing happens when it has ended."""
        ...


class Starter(Protocol):
    """A way to start processes."""

    async def start(self, spec: ProcessSpec, log: Path) -> Process:
        """`log` gets what it writes. Raises StartFailed."""
        ...

    async def give_up(self) -> None:
        """Nobody wants a process any more: a start that would take its time fails now."""
        ...


class StartFailed(Exception):
    """A process could not be started."""


class SpawnedProcess:
    """A fresh interpreter, leader of its own session so that Ctrl-C reaches the launcher only."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    async def signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # it ended and the loop has not heard of it yet
                os.killpg(self._process.pid, number)


class Spawner:
    """Starts fresh interpreters. For what is light to import."""

    async def start(self, spec: ProcessSpec, log: Path) -> Process:
        arguments = ["-m", "omni_cli.launcher.child", str(os.getpid()), spec.service, spec.name]
        return SpawnedProcess(await _spawn(arguments, spec.settings, log))

    async def give_up(self) -> None:
        """A start takes no time here."""


async def _spawn(
    arguments: Sequence[str], settings: Mapping[str, str], log: Path, pass_fds: Sequence[int] = ()
) -> anyio.abc.Process:
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return await anyio.open_process(
            [sys.executable, *arguments],
            stdin=None,
            stdout=output,
            stderr=output,
            env=child.environment(settings),
            start_new_session=True,
            pass_fds=pass_fds,
        )
    finally:
        os.close(output)


class ForkedProcess:
    """A child of the fork server, known here by its ticket."""

    def __init__(self, server: _Connection, ticket: int) -> None:
        self._server = server
        self._ticket = ticket
        self._started = anyio.Event()
        self._ended = anyio.Event()
        self._pid = 0
        self._code = -signal.SIGKILL

    @property
    def pid(self) -> int:
        return self._pid

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    async def started(self) -> bool:
        await self._started.wait()
        return self._pid != 0

    async def signal(self, number: signal.Signals) -> None:
        if not self._ended.is_set():
            await self._server.send({"order": "signal", "ticket": self._ticket, "signal": number})

    def has_started(self, pid: int) -> None:
        self._pid = pid
        self._started.set()

    def has_ended(self, code: int) -> None:
        self._code = code
        self._started.set()
        self._ended.set()


class _Connection:
    """One fork server's life as the launcher sees it."""

    def __init__(self, stream: anyio.abc.SocketStream, process: SpawnedProcess) -> None:
        self._stream = stream
        self._process = process
        self._children: dict[int, ForkedProcess] = {}
        self._last_ticket = 0
        self._sending = anyio.Lock()
        self.alive = True
        self.warm = anyio.Event()

    async def fork(self, spec: ProcessSpec, log: Path) -> ForkedProcess:
        self._last_ticket += 1
        forked = ForkedProcess(self, self._last_ticket)
        self._children[self._last_ticket] = forked
        await self.send(
            {
                "order": "spawn",
                "ticket": self._last_ticket,
                "name": spec.name,
                "service": spec.service,
                "settings": dict(spec.settings),
                "log": str(log),
            }
        )
        if not await forked.started():
            raise StartFailed("the fork server died")
        return forked

    async def send(self, order: dict[str, Any]) -> None:
        try:
            async with self._sending:
                await self._stream.send(json.dumps(order).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # `listen` sees the same end and tells every child's waiter.
            self.alive = False

    async def listen(self) -> None:
        """Runs until the server is gone; then everything it had started is gone as well."""
        answers = BufferedByteReceiveStream(self._stream)
        try:
            with anyio.CancelScope(shield=True):  # ended by `close` or by the server; whoever stops needs the answers
                while True:
                    self._hear(json.loads(await answers.receive_until(b"\n", _MAX_ANSWER)))
        except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            self.alive = False
            self.warm.set()
            for forked in self._children.values():
                forked.has_ended(-signal.SIGKILL)

    def _hear(self, answer: dict[str, Any]) -> None:
        match answer["event"]:
            case "ready":
                self.warm.set()
            case "started":
                self._children[answer["ticket"]].has_started(answer["pid"])
            case "exited":
                self._children.pop(answer["ticket"]).has_ended(answer["code"])

    async def give_up(self) -> None:
        if not self.warm.is_set():  # it imports, and would go on to the end
            await self._process.signal(signal.SIGKILL)

    async def close(self) -> None:
        await self._stream.aclose()  # the server ends when it reads the end
        with anyio.move_on_after(_EXIT_BOUND, shield=True):
            await self._process.wait()
            return
        await self._process.signal(signal.SIGKILL)
        with anyio.CancelScope(shield=True):  # bounded by SIGKILL
            await self._process.wait()


class Forker:
    """Starts processes by fork from a server that has imported `preload`; starts a new server when the old one died."""

    def __init__(self, tasks: anyio.abc.TaskGroup, preload: Sequence[str], *, name: str, logs: Path) -> None:
        self._tasks = tasks
        self._name = name
        self._preload = preload
        self._log = log_of(logs, name)
        self._connection: _Connection | None = None
        self._starting = anyio.Lock()

    async def start(self, spec: ProcessSpec, log: Path) -> Process:
        async with self._starting:
            if self._connection is None or not self._connection.alive:
                await self.close()
                self._connection = await self._connect()
            connection = self._connection
        # No deadline: how long imports take is the machine's affair, and a server that dies wakes us.
        await connection.warm.wait()
        if not connection.alive:
            words = last_lines(self._log)
            raise StartFailed(" ".join(["the fork server could not import its modules.", *words[-1:]]))
        return await connection.fork(spec, log)

    async def _connect(self) -> _Connection:
        ours, theirs = socket.socketpair()
        # Threads would not survive the fork, so the libraries must not start any while they are imported.
        settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        arguments = ["-m", "omni_cli.launcher.forkserver", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            server = await _spawn([*arguments, self._name, *self._preload], settings, self._log, (theirs.fileno(),))
        connection = _Connection(await anyio.abc.SocketStream.from_socket(ours), SpawnedProcess(server))
        self._tasks.start_soon(connection.listen)
        return connection

    async def give_up(self) -> None:
        if self._connection is not None:
            await self._connection.give_up()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


class Starters:
    """A fork server for each model family, since their libraries need not get on with each other in one process; what
    belongs to no family is a fresh interpreter."""

    def __init__(self, forkers: Mapping[str, Starter]) -> None:
        self._forkers = forkers
        self._spawner = Spawner()

    async def start(self, spec: ProcessSpec, log: Path) -> Process:
        return await self._forkers.get(spec.family, self._spawner).start(spec, log)

    async def give_up(self) -> None:
        for forker in self._forkers.values():
            await forker.give_up()


@asynccontextmanager
async def open_starters(preload: Mapping[str, Sequence[str]], logs: Path) -> AsyncIterator[Starters]:
    """`preload`: family → the modules that its fork server imports. A server starts with its family's first process."""
    async with anyio.create_task_group() as tasks:
        forkers = {f: Forker(tasks, modules, name=fork_server(f), logs=logs) for f, modules in preload.items()}
        try:
            yield Starters(forkers)
        finally:
            with anyio.CancelScope(shield=True):  # bounded inside
                async with anyio.create_task_group() as closing:
                    for forker in forkers.values():
                        closing.start_soon(forker.close)
            tasks.cancel_scope.cancel()


def fork_server(family: str) -> str:
    """The name of a family's server."""
    return f"fork-{family}"
