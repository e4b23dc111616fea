"""Keeps the processes of a plan running, and ends them in the right order.

Each process has a keeper: start, wait, say what happened, wait a little longer each time, start again. Stopping goes
tier by tier, the gateway first: SIGTERM, a grace that all tiers share, then SIGKILL for what is left.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from omni_cli.errors import LaunchFailed
from omni_cli.launcher.logs import begin_life, last_lines, log_of
from omni_cli.launcher.plan import ProcessSpec, Tier
from omni_cli.launcher.processes import Process, Starter, StartFailed
from omni_common.clock import Clock

FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 5.0
# A process that ran this long was well; its next end is a new story.
STEADY = 10.0
# Before the mesh was ever ready a process that keeps ending is misconfigured, not unlucky.
TRIES_TO_START = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """A process ended that should not have."""

    name: str
    why: str
    again_in: float
    log: tuple[str, ...]


class Supervisor:
    """Owns every process of one mesh."""

    def __init__(
        self,
        starter: Starter,
        *,
        logs: Path,
        report: Callable[[Ended], None],
        hopeless: Callable[[ProcessSpec], str] = lambda _: "",
        clock: Clock,
        grace: float,
    ) -> None:
        """`hopeless`: asked of a process that has ended before the mesh was ready; why to start it again is no use,
        as a sentence, or nothing."""
        self._starter = starter
        self._logs = logs
        self._report = report
        self._hopeless = hopeless
        self._clock = clock
        self._grace = grace
        self._running: dict[str, tuple[ProcessSpec, Process]] = {}
        self._stopping = anyio.Event()
        self._given_up = anyio.Event()
        self._restarted = anyio.Event()
        self._why = ""
        self._mesh_was_ready = False

    def running(self) -> Mapping[str, int]:
        """The pid of every process that runs now."""
        return {name: process.pid for name, (_, process) in self._running.items()}

    def mesh_is_ready(self) -> None:
        """From now on a process that keeps ending is restarted for ever."""
        self._mesh_was_ready = True

    async def restarted(self) -> None:
        """Waits for the next time that something which had ended runs again."""
        await self._restarted.wait()

    async def run(self, processes: Sequence[ProcessSpec]) -> None:
        """Runs until `stop` has ended everything; a cancelled keeper would leave its process behind."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as keepers:
                for spec in processes:
                    keepers.start_soon(self._keep, spec)

    async def watch(self) -> None:
        """Waits for a process that never gets going. Raises LaunchFailed."""
        await self._given_up.wait()
        raise LaunchFailed(self._why)

    async def stop(self) -> None:
        """Ends everything. Bounded by the grace and the time that SIGKILL takes."""
        self._stopping.set()
        with anyio.CancelScope(shield=True):
            await self._starter.give_up()
            with anyio.move_on_after(self._grace):
                for tier in sorted(Tier, reverse=True):
                    await _end(self._of(tier), signal.SIGTERM)
            await _end([process for _, process in self._running.values()], signal.SIGKILL)

    def _of(self, tier: Tier) -> list[Process]:
        return [process for spec, process in self._running.values() if spec.tier is tier]

    async def _keep(self, spec: ProcessSpec) -> None:
        log = log_of(self._logs, spec.name)
        backoff, tries = FIRST_BACKOFF, 0
        while not self._stopping.is_set():
            started, since = self._clock(), begin_life(log)
            why = await self._live(spec, log, again=tries > 0)
            if self._stopping.is_set():
                return
            tries += 1
            if self._clock() - started > STEADY:
                backoff = FIRST_BACKOFF
            lines = last_lines(log, since)
            if not self._mesh_was_ready and (sentence := self._hopeless(spec)):
                self._why = sentence
                self._given_up.set()
                return
            if not self._mesh_was_ready and tries == TRIES_TO_START:
                self._give_up(spec, why, lines)
                return
            self._report(Ended(spec.name, why, backoff, lines))
            with anyio.move_on_after(backoff):
                await self._stopping.wait()
            backoff = min(2 * backoff, LONGEST_BACKOFF)

    def _give_up(self, spec: ProcessSpec, why: str, lines: Sequence[str]) -> None:
        said = ["Its last words:", *lines] if lines else []
        self._why = "\n".join([f"{spec.name} {why}, {TRIES_TO_START} times in a row.", *said])
        self._given_up.set()

    async def _live(self, spec: ProcessSpec, log: Path, *, again: bool) -> str:
        """One life of a process; says how it ended."""
        try:
            process = await self._starter.start(spec, log)
        except StartFailed as error:
            return f"did not start: {error}"
        self._running[spec.name] = (spec, process)
        if again:
            self._restarted.set()
            self._restarted = anyio.Event()
        try:
            if self._stopping.is_set():  # `stop` may have looked at the list just before
                await process.signal(signal.SIGKILL)
            # No deadline: it runs as long as it is wanted.
            return _how_it_ended(await process.wait())
        finally:
            del self._running[spec.name]


@asynccontextmanager
async def supervised(supervisor: Supervisor, processes: Sequence[ProcessSpec]) -> AsyncIterator[None]:
    """The processes run inside and are gone after. Raises LaunchFailed (in a group) inside when one never starts."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor.run, processes)
        tasks.start_soon(supervisor.watch)
        try:
            yield
        finally:
            await supervisor.stop()
            tasks.cancel_scope.cancel()


async def _end(processes: Sequence[Process], number: signal.Signals) -> None:
    async with anyio.create_task_group() as waiters:
        for process in processes:
            await process.signal(number)
            waiters.start_soon(process.wait)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
