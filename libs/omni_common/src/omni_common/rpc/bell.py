"""Waking the one task that waits, on the thread of its event loop."""

from __future__ import annotations

import asyncio


class Bell:
    """What `anyio.Event` is for, many times over: a stream's writer waits once for each frame, and a future of the
    loop is made and waited for in a fifteenth of the time of an event (0.2 µs against 3.4), which is a new object each
    time as well."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wakes who waits; nothing where nobody does, so it is for who looks for work before waiting."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self) -> None:
        """Until the next ring. One task at a time."""
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting
