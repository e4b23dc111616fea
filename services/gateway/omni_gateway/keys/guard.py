"""The door: whoever asks for anything but a probe shows a key that is known, and keeps within its limits.

Closed unless it is a probe, by the path that routes are chosen by, so that no spelling of a route and no forgotten one
is open. What a key may do is decided before a byte of the body is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from math import ceil

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omni_common.clock import Clock
from omni_common.errors import OmniError, Reason
from omni_common.telemetry.logs import bound
from omni_common.telemetry.names import AUTH_FAILURES, KEY_LIMIT_REFUSALS
from omni_gateway.keys.limits import Allowance, Limits, Refused
from omni_gateway.keys.ring import Key, KeyRing, Stranger
from omni_gateway.replies import error_reply
from omni_gateway.watched import Watched

_OPEN = frozenset({"/livez", "/readyz"})
_WHY: Mapping[Stranger, str] = {
    Stranger.MISSING: "You did not provide an API key. Send it in a header: 'Authorization: Bearer KEY'.",
    Stranger.MALFORMED: "The API key must come in one header: 'Authorization: Bearer KEY'.",
    Stranger.UNKNOWN: "Incorrect API key provided.",
}


class Guard:
    """ASGI, around the application. The name of a key is in the log lines of its requests, as `tenant`."""

    def __init__(self, app: ASGIApp, keys: Watched[KeyRing], *, clock: Clock) -> None:
        self._app = app
        self._keys = keys
        self._known = keys.now
        self._limits = Limits()
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        key = self._ring().find(shown)
        if isinstance(key, Stranger):
            AUTH_FAILURES.labels(key).inc()
            await error_reply(OmniError(Reason.UNAUTHENTICATED, _WHY[key]))(scope, receive, send)
            return
        with bound(tenant=key.name):
            await self._admit(key, scope, receive, send)

    async def _admit(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        with self._counted(key) as allowed:
            if isinstance(allowed, Refused):
                KEY_LIMIT_REFUSALS.labels(allowed.limit).inc()
                reply = error_reply(_refusal(allowed))
                await reply(scope, receive, _telling(allowed.allowance, send))
            else:
                await self._app(scope, receive, _telling(allowed, send))

    @contextmanager
    def _counted(self, key: Key) -> Iterator[Allowance | Refused | None]:
        allowed = self._limits.enter(key, self._clock())
        try:
            yield allowed
        finally:
            if not isinstance(allowed, Refused):
                self._limits.leave(key)

    def _ring(self) -> KeyRing:
        if self._keys.now is not self._known:
            self._known = self._keys.now
            self._limits.keep(key.name for key in self._known.keys)
        return self._known


def _refusal(refused: Refused) -> OmniError:
    return OmniError(
        Reason.OVERLOADED,
        refused.message,
        code="rate_limit_exceeded",
        retry_after=timedelta(seconds=refused.wait),
    )


def _telling(allowance: Allowance | None, send: Send) -> Send:
    """Adds what OpenAI says of a limit, where there is one."""
    if allowance is None:
        return send
    told = [
        (b"x-ratelimit-limit-requests", str(allowance.limit).encode()),
        (b"x-ratelimit-remaining-requests", str(allowance.remaining).encode()),
        (b"x-ratelimit-reset-requests", render_reset(allowance.reset).encode()),
    ]

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *told]
        await send(message)

    return telling


def render_reset(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1s`, `6m0s`. Never too early."""
    milliseconds = ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
