"""W3C trace context across hops. With an OpenTelemetry SDK installed and configured, spans are recorded; without one
the context still crosses every hop unchanged."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from omni_common.request import TraceContext

_W3C = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("omni")


def trace_from_headers(headers: Mapping[str, str]) -> TraceContext:
    """The caller's context, when its headers carry a valid one; else that of a new, unsampled trace."""
    context = TraceContext(headers.get("traceparent", ""), headers.get("tracestate", ""))
    return context if trace_id_of(context) else new_trace()


def new_trace() -> TraceContext:
    """A context nobody records, so that the logs of all hops can be joined by its trace id."""
    return TraceContext(f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00")


def trace_id_of(context: TraceContext) -> str:
    """32 hex digits; empty when there is no valid context."""
    span = trace.get_current_span(_extract(context)).get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else ""


@contextmanager
def span(name: str, parent: TraceContext, attributes: Mapping[str, str] | None = None) -> Iterator[TraceContext]:
    """A span under `parent`; gives the context to send on to the next hop."""
    with _tracer.start_as_current_span(name, context=_extract(parent), attributes=attributes):
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        yield TraceContext(carrier.get("traceparent", ""), carrier.get("tracestate", ""))


def _extract(context: TraceContext) -> Context:
    return _W3C.extract({"traceparent": context.traceparent, "tracestate": context.tracestate}, Context())
