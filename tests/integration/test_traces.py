"""Traces, exemplars and the identifiers in logs, of a real mesh of processes and as a real collector gets them."""

from __future__ import annotations

import base64
import json
import re
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import anyio
import httpx2
import pytest
from tests.integration.otlp_collector import Collector, Spanned, collecting
from tests.integration.up_process import STAGES, Up, say, up

from omni_cli.launcher.network import free_port
from omni_cli.launcher.state import newest_state
from omni_common.telemetry import spans

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVICES = ("GATEWAY", "COORDINATOR", "STAGE", "RELAY")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Of a question in words, and of one with a photo that is answered by speech too.
WORDS = {spans.GATEWAY, spans.COORDINATOR} | {spans.stage_span(s) for s in STAGES if s not in {"count", "beep"}}
WHOLE = {spans.GATEWAY, spans.COORDINATOR, *map(spans.stage_span, STAGES)}


def everywhere(name: str, value: str) -> dict[str, str]:
    """A setting of every service."""
    return {f"OMNI_{service}_{name}": value for service in SERVICES}


def of_trace(all_spans: Iterable[Spanned], trace: str) -> list[Spanned]:
    return [span for span in all_spans if span.trace == trace]


def not_of_trace(all_spans: Iterable[Spanned], trace: str) -> list[Spanned]:
    return [span for span in all_spans if span.trace != trace]


def names_of(some: Iterable[Spanned]) -> set[str]:
    return {span.name for span in some}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


async def post(mesh: Up, body: object, headers: dict[str, str] | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        url = f"http://127.0.0.1:{mesh.port}/v1/chat/completions"
        return await http.post(url, json=body, headers=headers or {})


def chat(text: str) -> dict[str, object]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]}


def whole_chat(text: str, image: bytes) -> dict[str, object]:
    """One that every stage has a part in."""
    shown = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"}}
    content = [{"type": "text", "text": text}, shown]
    speech = {"modalities": ["text", "audio"], "audio": {"voice": "low", "format": "wav"}}
    return {"model": "echo", "messages": [{"role": "user", "content": content}], **speech}


async def page(run: Path, process: str, accept: str = "") -> str:
    state = newest_state(run)
    assert state is not None
    (address,) = (p.metrics for p in state.processes if p.name == process)
    async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
        return (await http.get(f"http://{address}/metrics", headers={"accept": accept})).text


async def test_one_request_is_one_trace_across_all_processes(tmp_path: Path, collector: Collector) -> None:
    forced = {"OMNI_STAGE_INLINE_LIMIT": "0"}  # every tensor goes by the relays
    async with up(tmp_path, "--apart", "--otlp", collector.address, settings=forced) as mesh:
        await mesh.ready()
        asked = whole_chat("hello mesh", PHOTO.read_bytes())
        reply = await post(mesh, asked, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
        assert reply.status_code == 200
        assert "hello" in (await say(mesh, "hello mesh")).lower()  # a trace of its own
        made = await collector.until(
            lambda so_far: names_of(of_trace(so_far, TRACE)) >= WHOLE and names_of(not_of_trace(so_far, TRACE)) >= WORDS
        )
        metrics = {p: await page(tmp_path, p, OPENMETRICS) for p in ("gateway-0", "coordinator-0")}
        plain = await page(tmp_path, "gateway-0")
        assert await mesh.stop(signal.SIGTERM) == 0
    told = of_trace(made, TRACE)
    by_name = {span.name: span for span in told}
    assert by_name.keys() >= WHOLE | {spans.AUDIO_ENCODE}
    root, request = by_name[spans.GATEWAY], by_name[spans.COORDINATOR]
    stages = [by_name[spans.stage_span(stage)] for stage in STAGES]
    assert root.parent == SPAN
    assert request.parent == by_name[spans.AUDIO_ENCODE].parent == root.id
    assert {stage.parent for stage in stages} == {request.id}
    assert len({span.process for span in (root, request, *stages)}) == 2 + len(STAGES)
    assert {span.outcome for span in (root, request, *stages)} == {"completed"}
    assert not any(span.failed for span in made)
    assert {span.attributes[spans.REQUEST_ID] for span in (root, request, *stages)} == {
        request.attributes[spans.REQUEST_ID]
    }
    assert root.events == (spans.FIRST_OUTPUT, spans.FIRST_AUDIO)
    for stage in stages:
        assert set(stage.events) == {spans.QUEUED, spans.RUNNING, spans.FIRST_OUTPUT, spans.DONE}, stage.name
        assert root.start <= stage.start <= stage.end

    edge = by_name[spans.edge_span("split>count")]
    assert edge.parent == by_name[spans.stage_span("split")].id
    assert edge.attributes[spans.TRANSPORT] == "tcp"
    assert int(edge.attributes[spans.BYTES]) > 0

    (other,) = {span.trace for span in made} - {TRACE}
    assert [span.parent for span in of_trace(made, other) if span.name == spans.GATEWAY] == [""]

    firsts = ("omni_time_to_first_output_seconds", "omni_time_to_first_audio_seconds")
    assert all(_exemplars(metrics["gateway-0"], name) for name in firsts)
    found = [
        t for text in metrics.values() for name in (*firsts, "omni_request_seconds") for t in _exemplars(text, name)
    ]
    assert _exemplars(metrics["coordinator-0"], "omni_request_seconds")
    assert set(found) <= {TRACE, other}
    assert "trace_id" not in plain


def _exemplars(text: str, name: str) -> list[str]:
    """The traces that a page names beside this histogram."""
    return re.findall(rf'^{name}_bucket.* # {{trace_id="([0-9a-f]{{32}})"}} ', text, re.M)


async def test_a_failure_says_why_in_every_span_that_it_reached(tmp_path: Path, collector: Collector) -> None:
    async with up(tmp_path, "--otlp", collector.address) as mesh:
        await mesh.ready()
        unknown = await post(mesh, {**chat("hello"), "model": "nobody-has-this"})
        assert unknown.status_code == 404
        made = await collector.until(bool)
        assert await mesh.stop(signal.SIGTERM) == 0
    (root,) = made
    assert root.failed
    assert root.outcome == root.attributes[spans.ERROR] == "model_not_found"
    assert b"nobody-has-this" not in collector.raw


async def test_without_a_collector_requests_and_the_drain_are_as_ever(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port('127.0.0.1')}"
    async with up(tmp_path, "--verbose", "--otlp", nowhere) as mesh:
        await mesh.ready()
        for _ in range(5):
            assert "hello" in (await say(mesh, "hello mesh")).lower()
        with anyio.fail_after(40):
            while not any("gateway-0 | " in line and "traces cannot be delivered" in line for line in mesh.said):
                await mesh.line()
        before = anyio.current_time()
        mesh.ask_to_stop()
        rest, code = await mesh.to_the_end()
        assert code == 0
        assert anyio.current_time() - before < 12
    gateway = [line for line in (*mesh.said, *rest) if "gateway-0 | " in line]
    assert sum("traces cannot be delivered" in line for line in gateway) == 1
    assert not [line for line in gateway if "opentelemetry" in line or "Traceback" in line]


async def test_traces_come_once_there_is_a_collector(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    async with up(tmp_path, "--otlp", f"127.0.0.1:{port}") as mesh:
        await mesh.ready()
        assert "hello" in (await say(mesh, "hello mesh")).lower()
        async with collecting(port) as collector:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_keep_asking, mesh)
                await collector.until(lambda made: names_of(made) >= WORDS, within=30)
                tasks.cancel_scope.cancel()
            assert await mesh.stop(signal.SIGTERM) == 0


async def _keep_asking(mesh: Up) -> None:
    while True:
        await say(mesh, "hello mesh")


async def test_unsampled_requests_leave_no_span_but_their_trace_crosses_every_hop(
    tmp_path: Path, collector: Collector
) -> None:
    settings = {**everywhere("TRACE_SAMPLING", "0"), **everywhere("LOG_LEVEL", "DEBUG")}
    async with up(tmp_path, "--verbose", "--otlp", collector.address, settings=settings) as mesh:
        await mesh.ready()
        assert (await post(mesh, chat("hello mesh"))).status_code == 200
        asked = whole_chat("hello mesh", PHOTO.read_bytes())
        reply = await post(mesh, asked, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert reply.status_code == 200
        assert "trace_id" not in await page(tmp_path, "gateway-0", OPENMETRICS)
        mesh.ask_to_stop()
        rest, code = await mesh.to_the_end()
        assert code == 0
    assert collector.spans == []
    told = [line for line in _records([*mesh.said, *rest]) if line.get("trace_id") == TRACE]
    assert {line["service"] for line in told} == {"gateway", "coordinator", "stage"}
    assert {line["stage"] for line in told if line["service"] == "stage"} == set(STAGES)
    assert not any("span_id" in line for line in told)


def _records(lines: Iterable[str]) -> list[dict[str, str]]:
    """The JSON lines of all processes."""
    said = (line.partition(" | ")[2] for line in lines)
    return [json.loads(line) for line in said if line.startswith("{")]
