"""Server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

Json = dict[str, object]

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"  # a comment, which every SSE reader skips

SSE_HEADERS: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # proxies of nginx's kind would gather the events
}


def sse(body: Mapping[str, object]) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"
