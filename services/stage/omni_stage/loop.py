"""The way from other threads onto the stage's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from omni_common.rpc.bell import Bell


class LoopThread:
    """Made on the event loop. `call` may be used from anywhere, finalizers included; `run` carries the calls out.

    They run in a task rather than in bare callbacks of the loop, so that a fault in one ends the process loudly.
    What waits is bounded by its senders: outputs of a scheduler's step, releases of leased slots.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._bell = Bell()
        self._rung = False

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Runs the function soon, in order; after the loop's end it does nothing, as nobody is left to tell."""
        self._calls.append((function, args))
        if not self._rung:  # else `run` has yet to look: waking the loop is a system call
            self._rung = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._bell.ring)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._calls:
                # What a call asks for comes in the next turn: streams and timers have theirs between the two.
                await asyncio.sleep(0)
            else:
                await self._bell.wait()  # no deadline: it waits for this process's own threads
            self._rung = False  # before looking: what is not seen now rings
            for _ in range(len(self._calls)):
                self._carry_out(*self._calls.popleft())

    @staticmethod
    def _carry_out(function: Callable[..., object], args: tuple[Any, ...]) -> None:
        # Of its own, so that nothing of a call is kept until the next one: its arguments may hold leases.
        function(*args)
