"""What a fake has heard and its test has not asked for yet."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio

Item = TypeVar("Item")

PATIENCE = 10.0
"""Seconds that a test waits for what must come: enough for a busy machine, and only a failing test waits so long."""

_ROOM = 4096  # a fake that hears more than this unread is in a test that has lost its way


class Mail(Generic[Item]):
    """Items in the order they came."""

    def __init__(self) -> None:
        self._in, self._out = anyio.create_memory_object_stream[Item](_ROOM)

    def put(self, item: Item) -> None:
        self._in.send_nowait(item)

    async def next(self) -> Item:
        """Raises TimeoutError when nothing comes."""
        with anyio.fail_after(PATIENCE):
            return await self._out.receive()

    @property
    def waiting(self) -> int:
        return self._out.statistics().current_buffer_used

    def drain(self) -> list[Item]:
        """All that waits, at once."""
        return [self._out.receive_nowait() for _ in range(self.waiting)]

    def close(self) -> None:
        self._in.close()
        self._out.close()
