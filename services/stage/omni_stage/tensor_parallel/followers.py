"""Rank 0's followers, from their start to their end. The replica that owns them ends with the first that ends.

They are started from the event loop's own thread: the signal of a parent's death is that of the thread.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from omni_common.lifecycle import CannotStart
from omni_stage.tensor_parallel.line import Line, LineBroken, pair
from omni_stage.tensor_parallel.order import Order, render
from omni_stage.tensor_parallel.rank import LOADED, REFUSED, Leading, Rank

logger = logging.getLogger(__name__)

# Seconds for followers whose lines have ended: they have nothing left to do.
_END_BOUND = 2.0
# Seconds to hear how a process ended whose line has.
_CODE_BOUND = 5.0
# Seconds for the step under way when the stage ends, and again once it has been broken off.
_STEP_BOUND = 5.0


class RankLost(CannotStart):
    """Why a stage that is spread over ranks cannot go on without one of them."""


class Followers:
    """The processes of ranks 1 to size - 1 of one stage replica."""

    def __init__(self, order: Order, size: int, timeout: float, tasks: anyio.abc.TaskGroup) -> None:
        self._order = order
        self._rank = Rank(size=size, timeout=timeout)
        self._tasks = tasks
        self._ended = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._lines: dict[int, Line] = {}
        self._loaded = {number: anyio.Event() for number in range(1, size)}
        self._leading: Leading | None = None

    @property
    def pids(self) -> Sequence[int]:
        return [process.pid for process in self._processes.values()]

    async def start(self) -> Leading:
        """Starts them all; they load meanwhile. One that dies from now on ends the task group of `spread`."""
        folder = self._ended.enter_context(tempfile.TemporaryDirectory(prefix="omni-ranks-"))
        self._rank = replace(self._rank, meeting=Path(folder) / "meeting")
        for number in self._loaded:
            self._start(number)
        self._leading = Leading(self._order.stage, self._rank, [*self._lines.values()])
        for number in self._loaded:
            self._tasks.start_soon(self._watch, number)
        return self._leading

    async def all_loaded(self) -> None:
        """Returns when every follower has its part of the model; to be called once rank 0 has its own.

        Raises RankLost when one has it not long after that: parts are of one size.
        """
        for number, loaded in self._loaded.items():
            with anyio.move_on_after(self._rank.timeout) as scope:
                await loaded.wait()
            if scope.cancelled_caught:
                waited = f"{self._rank.timeout:.0f} s after rank 0 had its own"
                raise RankLost(f"{self._stage} cannot start. Rank {number} has not loaded its part {waited}.")

    def break_off(self, why: str) -> None:
        """Whoever waits for another rank waits in vain from now on."""
        if self._leading is not None:
            self._leading.break_off(why)

    async def end(self) -> None:
        """None of them is left when this returns."""
        self.break_off("end")
        with anyio.CancelScope(shield=True):  # bounded by SIGKILL
            with anyio.move_on_after(_END_BOUND):
                for process in self._processes.values():
                    await _end_of(process)
            for process in self._processes.values():
                process.kill()  # where it has ended, nothing happens
                await _end_of(process)
            for line in self._lines.values():
                line.close()
        self._ended.close()

    @property
    def _stage(self) -> str:
        return f"Stage '{self._order.stage}'"

    def _start(self, number: int) -> None:
        line, theirs = pair()
        self._lines[number] = line
        command = [sys.executable, "-m", "omni_stage.tensor_parallel.follower", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            # Not by the event loop, which forks: gRPC's threads are running, and its handlers of forks would stop them.
            # Of a session of its own: what is sent to rank 0's group, such as Ctrl-C, is not for it.
            self._processes[number] = subprocess.Popen(  # noqa: S603  # our own module, and two numbers
                command, start_new_session=True, pass_fds=(theirs.fileno(),)
            )
        line.send(render(self._order.of(replace(self._rank, number=number))), self._rank.timeout)
        logger.info("a follower was started", extra={"rank": number, "pid": self._processes[number].pid})

    async def _watch(self, number: int) -> None:
        try:
            async for message in self._lines[number].messages():
                if message == LOADED:
                    self._loaded[number].set()
                elif message.startswith(REFUSED):
                    why = message.removeprefix(REFUSED).decode(errors="replace")
                    raise RankLost(f"{self._stage} cannot start. {why}")
        except LineBroken as error:
            raise RankLost(f"{self._stage} ends. The line to rank {number} {error}.") from error
        why = await self._why_ended(number)
        self.break_off(why)
        raise RankLost(f"{self._stage} ends. Its ranks {why}.")

    async def _why_ended(self, number: int) -> str:
        """A follower ends with 0 when its line does: any other end is its own, and the reason of the others'."""
        who = f"are not complete: rank {number} of {self._rank.size}"
        with anyio.move_on_after(_CODE_BOUND):
            code = await _end_of(self._processes[number])
            if code != 0:
                return f"{who} ended {f'by signal {-code}' if code < 0 else f'with exit code {code}'}"
        return (self._leading is not None and self._leading.why) or f"{who} has closed its line"


async def _end_of(process: subprocess.Popen[bytes]) -> int:
    return await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


@asynccontextmanager
async def spread(order: Order, size: int, timeout: timedelta) -> AsyncIterator[Followers | None]:
    """The followers of a stage with so many ranks, not started yet; None for one rank. They end with the block.

    `timeout` is how long one rank waits for another.
    """
    if size == 1:
        yield None
        return
    async with AsyncExitStack() as stack:
        tasks = anyio.create_task_group()
        followers = Followers(order, size, timeout.total_seconds(), tasks)
        stack.push_async_callback(followers.end)
        await stack.enter_async_context(tasks)
        yield followers
        tasks.cancel_scope.cancel()


async def stop_step(followers: Followers | None, stop: Callable[[], None]) -> None:
    """Calls `stop`, which waits for the step under way. A step of several ranks may wait for one that hangs: then it is
    broken off. Bounded, but for the step of a stage with one rank."""
    if followers is None:
        await anyio.to_thread.run_sync(stop)
        return
    with anyio.move_on_after(_STEP_BOUND):
        await anyio.to_thread.run_sync(stop, abandon_on_cancel=True)
        return
    followers.break_off("have been told to end")
    with anyio.move_on_after(_STEP_BOUND):
        await anyio.to_thread.run_sync(stop, abandon_on_cancel=True)


def cannot_be_spread(stage: str, size: int) -> str:
    return f"Stage '{stage}' cannot start. It runs on one GPU, and its tp_size is {size}."
