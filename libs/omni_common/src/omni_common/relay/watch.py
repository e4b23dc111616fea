"""Waiting for a socket, on asyncio's own terms.

anyio can wait for sockets too, but adds and removes the watch around every wait, which is a third of the time of a
message and its answer; here it stays for as long as the socket is open, and who waits does so for a future of the loop,
which costs a fifteenth of an event.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


class Watch:
    """The event loop's eye on one socket. Made on the loop, used there, and closed before the socket is."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = sock.fileno()
        self._woken = False
        self._waiting: asyncio.Future[None] | None = None
        self._writing = False
        self._open = True
        self._loop.add_reader(self._file, self.wake)

    async def readable(self) -> None:
        """Returns when there is something to read, or after `wake`; sometimes for nothing. No deadline: what is read
        is what others do when they please, and `wake` ends the wait."""
        if not self._woken:
            self._waiting = self._loop.create_future()
            await self._waiting
        self._woken = False

    def wake(self) -> None:
        """Lets `readable` return."""
        self._woken = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Calls back on every turn of the loop in which there is room to write, until `writable_no_more`."""
        if self._open and not self._writing:
            self._writing = True
            self._loop.add_writer(self._file, callback)

    def writable_no_more(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._file)

    def close(self) -> None:
        """Idempotent."""
        if self._open:
            self._open = False
            self.writable_no_more()
            self._loop.remove_reader(self._file)
        self.wake()
