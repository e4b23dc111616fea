"""Spans, and the W3C trace context that joins those of all hops.

Traces are off until `telemetry.export` turns them on. As long as they are, no span is made, `begin` gives one that does
nothing, and the caller's context crosses every hop unchanged.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from omni_common.errors import OmniError, Reason
from omni_common.request import TraceContext
from omni_common.telemetry import spans
from omni_common.telemetry.names import COMPLETED, outcome_of

Attributes = Mapping[str, str | int | float | bool]

OFF: Span = INVALID_SPAN
"""A span that does nothing."""

_W3C = TraceContextTextMapPropagator()
_CANCELLED = outcome_of(Reason.CANCELLED)
_tracer: trace.Tracer | None = None


def use(tracer: trace.Tracer | None) -> None:
    """Makes spans by this tracer from now on; by none: no spans. For `telemetry.export` and tests."""
    global _tracer
    _tracer = tracer


def is_on() -> bool:
    return _tracer is not None


# Contexts.


def trace_from_headers(headers: Mapping[str, str]) -> TraceContext:
    """The caller's context, when its headers carry a valid one. Else an empty one, under which a span begins a trace;
    where no spans are made, that of a new trace."""
    context = TraceContext(headers.get("traceparent", ""), headers.get("tracestate", ""))
    if trace_id_of(context):
        return context
    return new_trace() if _tracer is None else TraceContext()


def new_trace() -> TraceContext:
    """A context nobody records, so that the logs of all hops can be joined by its trace id."""
    return TraceContext(f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00")


def trace_id_of(context: TraceContext) -> str:
    """32 hex digits; empty when there is no valid context."""
    span = trace.get_current_span(_extract(context)).get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else ""


def context_of(span: Span, parent: TraceContext) -> TraceContext:
    """What goes to the next hop: the span's context, or that of `parent` where no span was made."""
    own = span.get_span_context()
    if not own.is_valid:
        return parent
    flags = f"{own.trace_flags:02x}"
    return TraceContext(
        f"00-{trace.format_trace_id(own.trace_id)}-{trace.format_span_id(own.span_id)}-{flags}",
        own.trace_state.to_header(),
    )


def log_ids(context: TraceContext, span: Span = OFF) -> dict[str, str]:
    """The fields of a log line by which it is found from the trace; `span` is the one that the line belongs to."""
    found = trace_id_of(context)
    ids = {"trace_id": found} if found else {}
    if span.is_recording():
        ids["span_id"] = trace.format_span_id(span.get_span_context().span_id)
    return ids


def exemplar(span: Span) -> dict[str, str] | None:
    """For an observation in a histogram: the trace that it was made in, if that is sampled. While the span lasts."""
    if not span.is_recording():
        return None
    return {"trace_id": trace.format_trace_id(span.get_span_context().trace_id)}


# Spans.


def begin(
    name: str, parent: TraceContext, attributes: Attributes | None = None, *, kind: SpanKind = SpanKind.INTERNAL
) -> Span:
    """A span under `parent`, or the first one of a trace; whoever has it calls `end`."""
    if _tracer is None:
        return OFF
    return _tracer.start_span(name, _extract(parent), kind, attributes, record_exception=False)


def end(span: Span, outcome: str = COMPLETED) -> None:
    """`outcome` as in metrics. Once; more often changes nothing."""
    if not span.is_recording():
        return
    span.set_attribute(spans.OUTCOME, outcome)
    if outcome not in (COMPLETED, _CANCELLED):
        span.set_attribute(spans.ERROR, outcome)
        span.set_status(trace.StatusCode.ERROR)
    span.end()


def record(name: str, parent: Span, seconds: float, attributes: Attributes) -> None:
    """A span under `parent` of what has ended just now and took so long."""
    if _tracer is None or not parent.is_recording():
        return
    began = time.time_ns() - int(seconds * 1e9)
    context = trace.set_span_in_context(parent, Context())
    _tracer.start_span(name, context, attributes=attributes, start_time=began).end()


def current() -> Span:
    """Of this task: the one of the `span` that it is in."""
    return OFF if _tracer is None else trace.get_current_span()


@contextmanager
def span(
    name: str, parent: TraceContext, attributes: Attributes | None = None, *, kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[Span]:
    """A span that is this task's, and that of the tasks it starts. It ends as the block does, unless it has ended."""
    if _tracer is None:
        yield OFF
        return
    made = begin(name, parent, attributes, kind=kind)
    outcome = _CANCELLED
    # What exceptions say, which may be anything, is not recorded.
    with trace.use_span(made, record_exception=False, set_status_on_exception=False):
        try:
            yield made
            outcome = COMPLETED
        except OmniError as error:
            outcome = outcome_of(error.reason)
            raise
        except Exception:  # a bug, which is answered and logged elsewhere
            outcome = outcome_of(Reason.INTERNAL)
            raise
        finally:
            end(made, outcome)


def _extract(context: TraceContext) -> Context:
    return _W3C.extract({"traceparent": context.traceparent, "tracestate": context.tracestate}, Context())
