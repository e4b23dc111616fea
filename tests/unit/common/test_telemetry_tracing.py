"""Trace context crosses every hop, whether or not anything records it."""

from __future__ import annotations

import pytest

from omni_common.request import TraceContext
from omni_common.telemetry.tracing import new_trace, span, trace_from_headers, trace_id_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_callers_context_is_taken_over() -> None:
    context = trace_from_headers({"traceparent": PARENT, "tracestate": "vendor=1"})
    assert context == TraceContext(PARENT, "vendor=1")
    assert trace_id_of(context) == TRACE


@pytest.mark.parametrize("parent", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", PARENT + "-x"])
def test_a_broken_context_becomes_a_new_trace(parent: str) -> None:
    made = trace_from_headers({"traceparent": parent})
    assert trace_id_of(made) not in ("", TRACE)


def test_new_traces_differ_and_are_not_sampled() -> None:
    first, second = new_trace(), new_trace()
    assert trace_id_of(first) != trace_id_of(second)
    assert first.traceparent.endswith("-00")


def test_without_an_sdk_a_span_passes_its_parent_on() -> None:
    with span("stage.thinker", TraceContext(PARENT, "vendor=1"), {"stage": "thinker"}) as child:
        assert child == TraceContext(PARENT, "vendor=1")


def test_an_untraced_request_stays_untraced() -> None:
    with span("stage.thinker", TraceContext()) as child:
        assert child == TraceContext()
