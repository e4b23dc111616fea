"""What a trace says of a request in a stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.recorded_spans import recording

from omni_common.errors import Reason
from omni_common.request import Envelope, GenerationParams, RequestKey, TraceContext
from omni_common.telemetry import spans, tracing
from omni_stage.identity import Identity
from omni_stage.spans import MAX_EDGE_SPANS, StageSpans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = RequestKey("req_1", 2)
ME = Identity(
    pipeline="p", stage="talker", replica="talker-0", pod="pod", node="node", address="h:1", capacity=1, relay=""
)
ENVELOPE = Envelope(KEY, "p", "c", 1e9, 0, {}, frozenset({"talker"}), GenerationParams(), 1, TraceContext(PARENT))


@pytest.fixture
def recorded() -> Iterator[InMemorySpanExporter]:
    with recording() as exporter:
        yield exporter


def live_through(of: StageSpans) -> None:
    """A request's whole life."""
    of.begin(ME, ENVELOPE)
    of.queued("talker", KEY)
    of.running("talker", KEY, 0.5)
    for _ in range(3):
        of.output("talker", KEY)
    of.output("talker", KEY, last=True)
    of.moved("talker>code2wav", KEY, "tcp", 100, 0.25)
    of.end("talker", KEY)


def about(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_request_is_one_span_with_what_happened_to_it(recorded: InMemorySpanExporter) -> None:
    of = StageSpans()
    began = time.time_ns()
    live_through(of)
    edge, stage = recorded.get_finished_spans()
    assert stage.name == "stage.talker"
    assert stage.parent is not None
    assert f"{stage.parent.span_id:016x}" == "b7ad6b7169203331"
    assert [e.name for e in stage.events] == [spans.QUEUED, spans.RUNNING, spans.FIRST_OUTPUT, spans.DONE]
    assert stage.events[1].timestamp < began
    assert about(stage) == {
        spans.PIPELINE: "p",
        spans.STAGE: "talker",
        spans.REPLICA: "talker-0",
        spans.POD: "pod",
        spans.NODE: "node",
        spans.REQUEST_ID: "req_1",
        spans.ATTEMPT: 2,
        spans.TENSORS: 1,
        spans.BYTES: 100,
        spans.OUTCOME: "completed",
    }
    assert edge.name == "edge.talker>code2wav"
    assert edge.parent == stage.context
    assert about(edge) == {spans.EDGE: "talker>code2wav", spans.TRANSPORT: "tcp", spans.BYTES: 100}
    assert len(of) == 0


def test_the_first_failure_is_the_outcome(recorded: InMemorySpanExporter) -> None:
    of = StageSpans()
    of.begin(ME, ENVELOPE)
    of.failed("talker", KEY, Reason.STAGE_FAILED)
    of.failed("talker", KEY, Reason.CANCELLED)
    of.end("talker", KEY)
    of.end("talker", KEY)
    (stage,) = recorded.get_finished_spans()
    assert about(stage)[spans.OUTCOME] == about(stage)[spans.ERROR] == "stage_failed"


def test_a_stream_of_tensors_is_a_bounded_number_of_spans(recorded: InMemorySpanExporter) -> None:
    of = StageSpans()
    of.begin(ME, ENVELOPE)
    for _ in range(10 * MAX_EDGE_SPANS):
        of.moved("talker>code2wav", KEY, "tcp", 100, 0.01)
    of.end("talker", KEY)
    *edges, stage = recorded.get_finished_spans()
    assert len(edges) == MAX_EDGE_SPANS
    assert about(stage)[spans.BYTES] == 1000 * MAX_EDGE_SPANS


def test_nothing_is_kept_of_requests_that_nobody_traces(recorded: InMemorySpanExporter) -> None:
    of = StageSpans()
    of.begin(ME, replace(ENVELOPE, trace=TraceContext(PARENT[:-1] + "0")))
    assert len(of) == 0
    tracing.use(None)
    live_through(of)
    assert len(of) == 0
    assert recorded.get_finished_spans() == ()
