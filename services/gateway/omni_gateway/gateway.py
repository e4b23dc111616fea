"""The gateway as a process runs it: HTTP in, streams to the coordinators out."""

from __future__ import annotations

import logging
import socket
import time
from datetime import timedelta

import anyio
from starlette.types import ASGIApp

from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.errors import OmniError, Reason
from omni_common.lifecycle import CannotStart, Lifecycle
from omni_common.rpc.tls import mesh_tls
from omni_gateway.app import build_app
from omni_gateway.chat import endpoint as chat
from omni_gateway.chat.transcripts import Transcripts
from omni_gateway.client import Client
from omni_gateway.files import open_files
from omni_gateway.http.certificate import Certificate
from omni_gateway.http.https import HttpsServer
from omni_gateway.http.protocol import HttpServer
from omni_gateway.serving import Serving
from omni_gateway.settings import GatewaySettings
from omni_gateway.speech import endpoint as speech
from omni_gateway.transcription import endpoint as transcription
from omni_gateway.watched import Watched, keep_fresh

logger = logging.getLogger(__name__)

# Of a drain's time, what is kept for telling those who are left: one event each and the end of their streams.
_FAREWELL = 1.0


class Gateway:
    """A `Service`: serves until cancelled, drains when asked."""

    def __init__(self, settings: GatewaySettings, *, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._lifecycle: Lifecycle | None = None
        self._files = open_files(settings)
        self.client = Client(settings.coordinators, credits=settings.output_credits, tls=mesh_tls(settings))
        transcripts = Transcripts(clock=clock, lifetime=settings.audio_lifetime.total_seconds())
        shared = Serving(self.client, settings, clock=clock)
        self.app = build_app(
            self.client,
            {
                chat.ROUTE: chat.ChatEndpoint(shared, transcripts),
                speech.ROUTE: speech.SpeechEndpoint(shared),
                **{route: transcription.TranscriptionEndpoint(shared, route) for route in transcription.ROUTES},
            },
            serving=lambda: self._lifecycle is not None and self._lifecycle.serving,
            created=int(time.time()),
            clock=clock,
            keys=self._files.keys,
        )
        self._server = _server(self.app, settings, self._files.certificate)
        self._closed = anyio.Event()
        self._socket = _listen(*settings.host_and_port)

    @property
    def port(self) -> int:
        """The port it took, where the settings left the choice."""
        return int(self._socket.getsockname()[1])

    async def run(self, started: Lifecycle) -> None:
        self._lifecycle = started
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.client.run)
            tasks.start_soon(self._serve)
            tasks.start_soon(keep_fresh, self._files.watched)
            await self._server.listening.wait()  # no deadline: `_serve` sets it or fails, and with it this group
            logger.info("gateway listens", extra={"port": self.port})
            started()

    async def drain(self, deadline: Deadline) -> None:
        """Takes no new connection; live requests may finish, and are told when they may not."""
        self._server.should_exit = True
        with anyio.move_on_after(max(0.0, deadline.remaining - _FAREWELL)):
            await self._closed.wait()
            return
        self.client.fail_all(_draining())
        await self._closed.wait()  # the caller cancels this at the deadline

    async def _serve(self) -> None:
        await self._server.serve([self._socket])
        self._closed.set()
        await anyio.sleep_forever()  # the end of the service is not the server's to decide


def _server(app: ASGIApp, settings: GatewaySettings, certificate: Watched[Certificate] | None) -> HttpServer:
    patience = settings.head_timeout.total_seconds()
    if certificate is None:
        return HttpServer(app, head_timeout=patience)
    return HttpsServer(app, head_timeout=patience, context=lambda: certificate.now.context)


def _draining() -> OmniError:
    return OmniError(
        Reason.STAGE_UNAVAILABLE,
        "The server is about to restart and could not finish this request.",
        code="draining",
        retry_after=timedelta(seconds=1),
    )


def _listen(host: str, port: int) -> socket.socket:
    """Raises CannotStart when the address is taken, or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # two sockets may be bound to a port as long as neither of them listens
    except OSError as error:
        listener.close()
        raise CannotStart(f"The gateway cannot listen on {host}:{port}: {error.strerror or error}.") from error
    return listener
