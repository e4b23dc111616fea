"""Writing a reply to a caller that may be slow, stuck or gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import anyio
from starlette.types import Receive, Scope, Send

from omni_common.errors import Cancelled, OmniError, Reason

# uvicorn buffers as much before it lets a sender wait, so a piece of this size is the unit of a caller's progress.
_PIECE = 64 * 1024


class SlowCaller(OmniError):
    """The caller takes nothing of its reply."""

    def __init__(self) -> None:
        super().__init__(Reason.SLOW_CONSUMER, "The caller stopped reading the reply.")


class Sender:
    """One reply. A caller that makes no progress for `stall` seconds is cut off: SlowCaller is raised and the
    connection reset, since an orderly end would wait for the same caller."""

    def __init__(self, scope: Scope, send: Send, *, stall: float) -> None:
        self.started = False
        self._send = send
        self._stall = stall
        self._reset: Callable[[], None] | None = scope.get("state", {}).get("reset")

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The status line and the headers; from here on a failure can no longer choose its status."""
        self.started = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes | bytearray) -> None:
        for start in range(0, len(data), _PIECE):
            await self._write(data[start : start + _PIECE], more=True)

    async def end(self) -> None:
        await self._write(b"", more=False)

    def reset(self) -> None:
        """Ends the connection at once, so that nobody takes what was sent for a whole reply."""
        if self._reset is not None:
            self._reset()

    async def whole(self, content_type: str, data: bytes | bytearray) -> None:
        """A complete reply."""
        await self.start(200, {"content-type": content_type, "content-length": str(len(data))})
        await self.write(data)
        await self.end()

    async def _write(self, data: bytes | bytearray, *, more: bool) -> None:
        with anyio.move_on_after(self._stall) as scope:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        if scope.cancelled_caught:
            self.reset()
            raise SlowCaller


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Does the work unless the caller leaves first: Cancelled is raised then. Needs the request's body to be read.

    An OmniError of the work is raised as it is, not in a group.
    """
    failures: list[OmniError] = []
    done = False

    async def watch() -> None:
        # No deadline: the work has one, and its end cancels this.
        while (await receive())["type"] != "http.disconnect":
            pass
        if not done:  # the end of a reply looks like a disconnect, too
            failures.append(Cancelled())
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            await work()
        except OmniError as error:
            failures.append(error)
        done = True
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
