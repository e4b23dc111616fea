"""Trace context crosses every hop, whether or not anything records it; what records says how requests ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest
from tests.recorded_spans import recording

from omni_common.errors import Internal, Overloaded
from omni_common.request import TraceContext
from omni_common.telemetry import spans
from omni_common.telemetry.tracing import (
    OFF,
    begin,
    context_of,
    current,
    end,
    exemplar,
    log_ids,
    new_trace,
    record,
    span,
    trace_from_headers,
    trace_id_of,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def sampling() -> float:
    return 1.0


@pytest.fixture
def recorded(sampling: float) -> Iterator[InMemorySpanExporter]:
    """What is made from now on."""
    with recording(sampling) as exporter:
        yield exporter


def only(recorded: InMemorySpanExporter) -> ReadableSpan:
    (found,) = recorded.get_finished_spans()
    return found


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


@pytest.mark.parametrize("parent", [TraceContext(PARENT, "vendor=1"), TraceContext()])
def test_while_off_a_span_is_nothing_and_its_parent_is_passed_on(parent: TraceContext) -> None:
    with span("thing", parent) as made:
        assert made is begin("thing", parent) is current() is OFF
        assert context_of(made, parent) == parent
        assert exemplar(made) is None
    end(made)


def test_a_span_continues_the_callers_trace(recorded: InMemorySpanExporter) -> None:
    parent = TraceContext(PARENT, "vendor=1")
    with span("gateway", parent, {spans.ROUTE: "/v1"}) as made:
        assert current() is made
        inner = context_of(made, parent)
    found = only(recorded)
    assert found.parent is not None
    assert found.context is not None
    assert f"{found.parent.span_id:016x}" == SPAN
    assert inner == TraceContext(f"00-{TRACE}-{found.context.span_id:016x}-01", "vendor=1")
    assert found.attributes == {spans.ROUTE: "/v1", spans.OUTCOME: "completed"}
    assert current() is not made


def test_a_request_without_a_trace_begins_one(recorded: InMemorySpanExporter) -> None:
    end(begin("gateway", trace_from_headers({})))
    assert only(recorded).parent is None


@pytest.mark.parametrize("sampling", [0.0])
def test_what_is_not_sampled_leaves_only_its_context(recorded: InMemorySpanExporter) -> None:
    with span("gateway", trace_from_headers({})) as made:
        context = context_of(made, TraceContext())
        assert trace_id_of(context)
        assert not int(context.traceparent[-2:], 16) & 1
        assert exemplar(made) is None
        assert log_ids(context, made) == {"trace_id": trace_id_of(context)}
        record("part", made, 1.0, {})
        end(begin("next", context))
    assert recorded.get_finished_spans() == ()


@pytest.mark.parametrize(("sampling", "parent", "made"), [(0.0, PARENT, 1), (1.0, UNSAMPLED, 0)])
def test_the_callers_choice_counts(recorded: InMemorySpanExporter, parent: str, made: int) -> None:
    end(begin("gateway", trace_from_headers({"traceparent": parent})))
    assert len(recorded.get_finished_spans()) == made


def test_a_span_says_how_it_ended_and_nothing_of_what_was_said(recorded: InMemorySpanExporter) -> None:
    def fail(error: BaseException) -> None:
        with span("gateway", TraceContext()):
            raise error

    for error in (Overloaded("secret"), Internal("secret"), ValueError("secret"), KeyboardInterrupt("secret")):
        with pytest.raises(type(error)):
            fail(error)
    made = recorded.get_finished_spans()
    outcomes = [(one.attributes or {})[spans.OUTCOME] for one in made]
    assert outcomes == ["overloaded", "internal", "internal", "cancelled"]
    assert [one.status.status_code for one in made] == [StatusCode.ERROR] * 3 + [StatusCode.UNSET]
    assert [spans.ERROR in (one.attributes or {}) for one in made] == [True] * 3 + [False]
    assert not any("secret" in one.to_json() for one in made)


def test_the_first_end_counts(recorded: InMemorySpanExporter) -> None:
    with span("gateway", TraceContext()) as made:
        end(made, "deadline_exceeded")
    assert (only(recorded).attributes or {})[spans.OUTCOME] == "deadline_exceeded"


def test_what_has_ended_is_recorded_under_its_parent(recorded: InMemorySpanExporter) -> None:
    with span("gateway", TraceContext()) as made:
        record("part", made, 0.25, {spans.BYTES: 5})
    part, whole = recorded.get_finished_spans()
    assert part.parent == whole.context
    assert part.start_time is not None
    assert part.end_time is not None
    assert 0.25 <= (part.end_time - part.start_time) / 1e9 < 1


def test_an_exemplar_names_the_trace_for_openmetrics_alone(recorded: InMemorySpanExporter) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "Some.", registry=registry)
    with span("gateway", TraceContext(PARENT)) as made:
        histogram.observe(1, exemplar(made))
    assert f'# {{trace_id="{TRACE}"}} 1.0' in generate_latest(registry).decode()  # type: ignore[no-untyped-call]


def test_a_log_line_names_its_span_while_it_lasts(recorded: InMemorySpanExporter) -> None:
    with span("gateway", TraceContext(PARENT)) as made:
        ids = log_ids(TraceContext(PARENT), made)
    assert ids == {"trace_id": TRACE, "span_id": f"{made.get_span_context().span_id:016x}"}
    assert log_ids(TraceContext(PARENT), made) == {"trace_id": TRACE}
    assert log_ids(TraceContext()) == {}
