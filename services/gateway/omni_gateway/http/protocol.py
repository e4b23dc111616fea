"""uvicorn's HTTP/1.1 protocol with the guards it lacks: a limit of time for request heads, a reset, JSON errors.

h11 bounds a head's size; nothing in uvicorn bounds the time that half a head may take, so that idle sockets pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Iterator
from typing import Any

import anyio
import h11
import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from omni_common.errors import InvalidRequest
from omni_gateway.replies import error_body

# Larger than any head a client of ours sends, and small enough to hold thousands of.
MAX_HEAD = 32 * 1024
# Longer than clients keep idle connections (5 s for OpenAI's), so that they never reuse one that is just closing.
KEEP_ALIVE = 75


def guarded(head_timeout: float) -> type[H11Protocol]:
    """The protocol with this many seconds for a request's head, and for the first byte of a new connection."""

    class GuardedProtocol(_GuardedProtocol):
        HEAD_TIMEOUT = head_timeout

    return GuardedProtocol


class _GuardedProtocol(H11Protocol):
    HEAD_TIMEOUT = 10.0

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        # Reaches the application as scope["state"]["reset"].
        self.app_state = {**self.app_state, "reset": self._reset}
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._head_is_here()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or has too large a head, never reaches the application."""
        del msg
        body = orjson.dumps(error_body(InvalidRequest("The server received an invalid HTTP request.")))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", f"req_{secrets.token_hex(16)}".encode()),
        ]
        with contextlib.suppress(h11.LocalProtocolError):  # a reply is under way: the connection just ends
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _reset(self) -> None:
        """Ends the connection and drops what the caller has not taken, in this process and in the kernel."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.HEAD_TIMEOUT, self._reset)

    def _head_is_here(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class HttpServer(uvicorn.Server):
    """uvicorn inside a service that handles the signals itself."""

    def __init__(self, app: Any, *, head_timeout: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=guarded(head_timeout),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="error",  # it warns of each request that is no HTTP or asks for an upgrade: strangers' lines
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self.listening = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()
