"""What a trace says of a request at the gateway."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from opentelemetry.trace import Span, SpanKind
from starlette.types import Scope

from omni_common.request import TraceContext
from omni_common.telemetry import spans
from omni_common.telemetry.tracing import current, end, span
from omni_gateway.tally import Tally


def gateway_span(scope: Scope, route: str, trace: TraceContext) -> AbstractContextManager[Span]:
    """The first span of the mesh, of an HTTP request to a route that generates."""
    attributes = {spans.ROUTE: route, spans.HTTP_REQUEST_ID: scope.get("state", {}).get("request_id", "")}
    return span(spans.GATEWAY, trace, attributes, kind=SpanKind.SERVER)


def note_request(tally: Tally, pipeline: str, outcome: str, *, streamed: bool) -> None:
    """How it was answered, in the span that this task is in, which ends here. `pipeline` is one that a coordinator
    named."""
    root = current()
    if not root.is_recording():
        return
    root.set_attributes({spans.PIPELINE: pipeline, spans.STREAMED: streamed, spans.REQUEST_ID: tally.request_id})
    began = time.time_ns() - int((tally.clock() - tally.began) * 1e9)
    for event, seconds in ((spans.FIRST_OUTPUT, tally.first_output), (spans.FIRST_AUDIO, tally.first_audio)):
        if seconds is not None:
            root.add_event(event, timestamp=began + int(seconds * 1e9))
    end(root, outcome)
