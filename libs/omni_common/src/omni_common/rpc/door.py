"""Who may call what, by the names in the caller's certificate; and who came and never proved to have one.

gRPC in Python says nothing of a handshake that failed at its server (its core writes a line to standard error). What
it does say is that a connection came, and of each call whose it is. So a connection that made no call within some
seconds, which components never do, is counted as one that was refused; so is a port scanner's, rightly.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import grpc.aio

from omni_common.clock import Clock, monotonic
from omni_common.component import Component
from omni_common.errors import OmniError, Reason
from omni_common.rpc.interceptors import Behaviour, parts_of
from omni_common.rpc.status import abort_with
from omni_common.rpc.tls_refusal import SENTENCES, TlsRefusal
from omni_common.telemetry import names

logger = logging.getLogger(__name__)

Allowed = Mapping[str, frozenset[Component]]
"""Full name of a method → the components that may call it. Any certificate of the mesh may call the others."""

PROOF = 10.0
"""Seconds from a connection to its first call. The mesh's channels connect because a call waits."""

_PEERS = 1024
_QUIET = 60.0
"""Seconds between two lines about connections that proved nothing."""


class Timers(Protocol):
    """Of an event loop, what is needed here."""

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> object: ...

    def call_later(self, delay: float, callback: Callable[[int], None], begun: int) -> object: ...


class Arrivals:
    """Connections that came, and those that proved who they are. On the event loop, but for `began`."""

    def __init__(self, loop: Timers, *, proof: float = PROOF, clock: Clock = monotonic) -> None:
        self._loop = loop
        self._proof = proof
        self._clock = clock
        self._begun = 0
        self._settled = 0
        self._peers: dict[str, None] = {}
        self._said = float("-inf")

    def began(self) -> None:
        """Any thread."""
        with suppress(RuntimeError):  # the loop has ended, and the process with it
            self._loop.call_soon_threadsafe(self._expect)

    def proven(self, peer: str) -> None:
        """A call came on this connection."""
        if peer not in self._peers:
            self._peers[peer] = None
            self._settled += 1
            if len(self._peers) > _PEERS:
                del self._peers[next(iter(self._peers))]

    def _expect(self) -> None:
        self._begun += 1
        self._loop.call_later(self._proof, self._due, self._begun)

    def _due(self, begun: int) -> None:
        """So many had come a while ago, so as many should have called by now."""
        missing = begun - self._settled
        if missing <= 0:
            return
        self._settled = begun
        names.TLS_REFUSALS.labels(TlsRefusal.UNPROVEN).inc(missing)
        if self._clock() - self._said >= _QUIET:
            self._said = self._clock()
            logger.warning(SENTENCES[TlsRefusal.UNPROVEN], extra={"connections": missing})


class DoorInterceptor(grpc.aio.ServerInterceptor):
    """Refuses callers by their component. Belongs inside of ErrorInterceptor, which makes a status of the refusal."""

    def __init__(self, allowed: Allowed, proven: Callable[[str], None]) -> None:
        self._allowed = allowed
        self._proven = proven
        self._logged: set[tuple[TlsRefusal, str, str]] = set()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        behaviour, make = parts_of(handler)
        check = self._checked if inspect.iscoroutinefunction(behaviour) else self._checked_generator
        return make(
            check(behaviour, handler_call_details.method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _checked(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self._check(method, context)
            return await behaviour(request, context)

        return checked

    def _checked_generator(self, behaviour: Callable[..., AsyncIterator[Any]], method: str) -> Callable[..., Any]:
        """Other people's, such as the reflection service's, which ErrorInterceptor leaves alone."""

        async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                self._check(method, context)
            except OmniError as refusal:
                await abort_with(context, refusal)
            async for answer in behaviour(request, context):
                yield answer

        return checked

    def _check(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._proven(context.peer())
        known = context.auth_context()
        theirs = frozenset(name.decode("utf-8", "replace") for name in known.get("x509_subject_alternative_name", ()))
        allowed = self._allowed.get(method)
        what, shown = method.rpartition("/")[2], ", ".join(sorted(theirs)) or "no name"
        if b"true" in known.get("ssl_session_reused", ()):  # no component asks for that; see SENTENCES
            self._refuse(TlsRefusal.RESUMED, what, shown)
            raise OmniError(Reason.FORBIDDEN, f"{what} needs a connection with a handshake of its own.")
        if allowed is not None and not theirs & allowed:
            self._refuse(TlsRefusal.ROLE, what, shown)
            whom = " and ".join(sorted(allowed))
            raise OmniError(Reason.FORBIDDEN, f"{what} is for {whom}; the caller's certificate has {shown}.")

    def _refuse(self, refusal: TlsRefusal, what: str, shown: str) -> None:
        names.TLS_REFUSALS.labels(refusal).inc()
        told = (refusal, what, shown)
        if told not in self._logged and len(self._logged) < _PEERS:
            self._logged.add(told)
            logger.warning(SENTENCES[refusal], extra={"method": what, "names": shown})
