"""What every reply carries and every request is counted in. Pure ASGI: it adds no task and buffers nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omni_common.clock import Clock
from omni_common.telemetry.logs import bound
from omni_common.telemetry.names import HTTP_IN_FLIGHT, HTTP_REQUESTS

_ROUTES = frozenset({"/v1/models", "/v1/audio/voices", "/livez", "/readyz"})
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class RequestEdge:
    """Gives each request an identifier of our own making (a caller's could hijack another's), tells how long the
    answer took to begin, counts."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[str], clock: Clock) -> None:
        """`routes` are those that the application was given beside its own."""
        self._app = app
        self._routes = _ROUTES.union(routes)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(16)}"
        scope.setdefault("state", {})["request_id"] = request_id
        route, began, status = self._route(scope["path"]), self._clock(), 0

        async def labelled(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                milliseconds = max(1, round(1000 * (self._clock() - began)))
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(milliseconds).encode()),
                ]
            await send(message)

        in_flight = HTTP_IN_FLIGHT.labels(route)
        with bound(request_id=request_id), in_flight.track_inprogress():
            try:
                await self._app(scope, receive, labelled)
            finally:
                method = scope["method"] if scope["method"] in _METHODS else "other"
                HTTP_REQUESTS.labels(route, method, str(status)).inc()

    def _route(self, path: str) -> str:
        """A label from a closed list, whatever callers ask for."""
        if path in self._routes:
            return path
        return "/v1/models/{id}" if path.startswith("/v1/models/") else "other"
