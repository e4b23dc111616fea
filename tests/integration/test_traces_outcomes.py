"""However a request ends, each of its spans ends with it and says how; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.integration.mesh import Layout, mesh, say
from tests.integration.mesh_requests import LONG, ask, rest
from tests.recorded_spans import recording

from omni_common.errors import OmniError, Reason
from omni_common.request import Media, Modality, TraceContext
from omni_common.telemetry import spans
from omni_common.testing.gateway import Piece
from omni_stage.spans import STAGE_SPANS

pytestmark = pytest.mark.anyio

TRACE = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
def recorded() -> Iterator[InMemorySpanExporter]:
    with recording() as exporter:
        yield exporter


def outcomes(some: Sequence[ReadableSpan]) -> dict[str, object]:
    return {span.name: (span.attributes or {}).get(spans.OUTCOME) for span in some}


async def test_a_request_that_is_cancelled_in_mid_stream(tmp_path: Path, recorded: InMemorySpanExporter) -> None:
    async with mesh(tmp_path) as made:
        ticket = made.gateway.submit(say(LONG, spoken=True), output_credits=4, trace=TRACE)
        await ticket.admitted()
        await ticket.piece()
        ticket.cancel()
        while isinstance(notice := await ticket.notices.next(), Piece):
            pass
        assert isinstance(notice, OmniError)
        await made.until_idle(within=2.0)
    told = outcomes(recorded.get_finished_spans())
    assert told[spans.COORDINATOR] == "cancelled"
    assert told["stage.say"] == told["stage.write"] == told["stage.beep"] == "cancelled"
    assert told["stage.split"] == "completed"


async def test_a_request_that_takes_too_long(tmp_path: Path, recorded: InMemorySpanExporter) -> None:
    async with mesh(tmp_path) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=1, remaining=0.3, trace=TRACE)
        await ticket.admitted()
        await ticket.piece()
        assert (await ticket.failed()).reason is Reason.DEADLINE_EXCEEDED
        await made.until_idle(within=5.0)
    told = {span.name: span for span in recorded.get_finished_spans()}
    request = told[spans.COORDINATOR]
    assert outcomes([request]) == {spans.COORDINATOR: "deadline_exceeded"}
    assert not request.status.is_ok


async def test_a_request_that_is_refused(tmp_path: Path, recorded: InMemorySpanExporter) -> None:
    async with mesh(tmp_path) as made:
        ticket = made.gateway.submit(say("hello", model="nobody-has-this"), trace=TRACE)
        assert (await ticket.failed()).reason is Reason.MODEL_NOT_FOUND
    assert outcomes(recorded.get_finished_spans()) == {spans.COORDINATOR: "model_not_found"}


async def test_requests_that_lose_a_replica(tmp_path: Path, recorded: InMemorySpanExporter) -> None:
    async with mesh(tmp_path) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=2, trace=TRACE)
        await ticket.admitted()
        await ticket.piece()
        with anyio.fail_after(4.0):
            await made.stages["write-0"].kill()
        del made.stages["write-0"]
        while isinstance(notice := await ticket.notices.next(), Piece):
            pass
        assert isinstance(notice, OmniError)
        await made.until_idle(within=5.0)
    told = outcomes(recorded.get_finished_spans())
    assert told[spans.COORDINATOR] == "stage_unavailable"
    assert told["stage.say"] in ("stage_unavailable", "cancelled")


async def test_requests_that_lose_a_replica_and_go_on_elsewhere(tmp_path: Path, recorded: InMemorySpanExporter) -> None:
    async with mesh(tmp_path, Layout(replicas={"write": 2})) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=2, trace=TRACE)
        await ticket.admitted()
        piece = await ticket.piece()
        with anyio.fail_after(4.0):
            await made.stages["write-0"].kill()
        del made.stages["write-0"]
        await rest(ticket, piece)
        await made.until_idle(within=5.0)
    told = recorded.get_finished_spans()
    [request] = [span for span in told if span.name == spans.COORDINATOR]
    [lost] = [event for event in request.events if event.name == spans.FAILOVER]
    assert lost.attributes == {spans.STAGE: "write", spans.ATTEMPT: 1, spans.OUTCOME: "resumed"}
    assert (request.attributes or {})[spans.OUTCOME] == "completed"
    attempts = {(span.attributes or {})[spans.ATTEMPT] for span in told if span.name == "stage.say"}
    assert attempts == {0, 1}


async def test_nothing_is_kept_of_requests_that_end_at_any_moment(
    tmp_path: Path, recorded: InMemorySpanExporter
) -> None:
    before = len(STAGE_SPANS)  # a replica that was killed in this process has left some
    async with mesh(tmp_path, Layout(inline_limit=0)) as made:
        file = Media(Modality.IMAGE, bytes(300_000))
        for turns in range(0, 120, 3):
            ticket = made.gateway.submit(say("a few words to say", file, spoken=True), trace=TRACE)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            ticket.cancel()
        await made.until_idle(within=5.0)
        assert len(STAGE_SPANS) == before
        text, _, _ = await ask(made, "still here")
        assert text.split() == ["STILL", "HERE"]
        await made.until_idle(within=5.0)
    assert len(STAGE_SPANS) == before
    stages = [span for span in recorded.get_finished_spans() if span.name.startswith("stage.")]
    assert all(span.end_time is not None for span in stages)
    requests = {(s.name, (s.attributes or {})[spans.REQUEST_ID]) for s in stages}
    assert len(requests) == len(stages)  # one for each stage request
