"""HTTPS: the same protocol inside TLS, with the certificate of the moment for every new connection.

The listener is ours and not uvicorn's, which has one context for its life, gives a handshake a minute and tells nobody
of those that fail. A handshake here is a task of its own: one that hangs or fails ends within the time for a request's
head, is counted by why, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.abc

from omni_common.telemetry.names import HTTPS_HANDSHAKE_FAILURES
from omni_gateway.http.protocol import HttpServer

logger = logging.getLogger(__name__)

# Callers that are greeting at once: those that mean it need milliseconds, the others hold a descriptor and some 100 KB.
MAX_HANDSHAKES = 1024
# How long a caller that was told of the end may take to say so, too; the answer is complete by then.
_GOODBYE = 1.0
# Without descriptors nothing can be accepted; they come back as callers leave.
_BREATHER = 0.25

_REASONS = {
    "HTTP_REQUEST": "plain_http",
    "HTTPS_PROXY_REQUEST": "plain_http",
    "UNSUPPORTED_PROTOCOL": "version",
    "NO_SHARED_CIPHER": "version",
}


class HttpsServer(HttpServer):
    """`context` gives the one for a new connection."""

    def __init__(
        self,
        app: Any,
        *,
        head_timeout: float,
        context: Callable[[], ssl.SSLContext],
        max_handshakes: int = MAX_HANDSHAKES,
    ) -> None:
        super().__init__(app, head_timeout=head_timeout)
        self._max_handshakes = max_handshakes
        self._patience = head_timeout
        self._context = context
        self._greeting = 0
        self._accepting = anyio.CancelScope()
        self._closed = anyio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._accept_all, sockets or [])
            await super().serve(sockets)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Instead of uvicorn's: the listeners are served by `_accept_all`."""
        for listener in sockets or []:
            listener.listen(self.config.backlog)
            listener.setblocking(False)
        await self.lifespan.startup()
        self.servers = []
        self.started = True
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        await self._closed.wait()  # no deadline: all that is in there has been cancelled
        await super().shutdown(sockets)

    async def _accept_all(self, listeners: Sequence[socket.socket]) -> None:
        with self._accepting:
            await self.listening.wait()  # no deadline: `startup` sets it or fails, and with it this group
            async with anyio.create_task_group() as handshakes:
                for listener in listeners:
                    handshakes.start_soon(self._accept, listener, handshakes)
        self._closed.set()

    async def _accept(self, listener: socket.socket, handshakes: anyio.abc.TaskGroup) -> None:
        told = False
        while True:
            await anyio.wait_readable(listener)
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # it was there, and left
                continue
            except OSError as error:
                if not told:
                    logger.warning("no connection can be accepted", extra={"why": error.strerror})
                told = True
                await anyio.sleep(_BREATHER)
                continue
            told = False
            if self._greeting >= self._max_handshakes:
                connection.close()
                HTTPS_HANDSHAKE_FAILURES.labels("too_many").inc()
                continue
            self._greeting += 1
            handshakes.start_soon(self._greet, connection)

    async def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._new_protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=self._patience,
                ssl_shutdown_timeout=_GOODBYE,
            )
        except OSError as error:  # of which ssl's are a kind
            HTTPS_HANDSHAKE_FAILURES.labels(why_failed(error)).inc()
        finally:
            self._greeting -= 1

    def _new_protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def why_failed(error: OSError) -> str:
    """The `reason` label, from a closed list."""
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        # A caller that does not trust the certificate says so, and OpenSSL names what it said.
        return "refused_by_caller" if "ALERT" in reason else _REASONS.get(reason, "no_tls")
    # Both loops say so when the time is over; a caller that leaves resets.
    return "timeout" if isinstance(error, ConnectionAbortedError) else "left"
