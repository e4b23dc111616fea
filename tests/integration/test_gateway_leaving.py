"""Callers that leave, stall or trickle, and a gateway that is asked to stop."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import anyio.to_thread
import httpx2
import orjson
import pytest
from prometheus_client import REGISTRY
from tests.integration.gateway_mesh import MODEL, Mesh, mesh, running, until

from omni_common.deadline import Deadline
from omni_common.request import AudioOutput, TextOutput
from omni_common.testing.coordinator import fake_coordinator
from omni_common.testing.scripts import Admit, Finish, Scripted, pipeline_status

pytestmark = pytest.mark.anyio

PCM = bytes(48_000)


def chat_head(body: bytes, *, length: int | None = None) -> bytes:
    """A request's head by hand, for callers that no client library would be."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % (len(body) if length is None else length)
    )


def chat_body(**fields: object) -> bytes:
    return orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields})


async def connect(here: Mesh) -> anyio.abc.SocketStream:
    return await anyio.connect_tcp("127.0.0.1", here.port)


async def is_idle(here: Mesh, answer: Scripted) -> None:
    """The mesh has heard of the end, and the gateway holds nothing of the request."""
    with anyio.fail_after(2):
        await answer.cancelled.wait()
        await answer.ended.wait()
    assert here.gateway.client.live == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("outputs", [0, 1, 3])
async def test_a_caller_that_leaves_cancels_its_request_at_any_moment(stream: bool, outputs: int) -> None:
    async with mesh() as here:
        steps = [TextOutput("x")] * outputs
        reached = anyio.Event()
        answer = here.coordinator.script(Admit(), *steps, reached)
        caller = await connect(here)
        body = chat_body(stream=stream)
        await caller.send(chat_head(body) + body)
        await answer.submitted.wait()
        if stream and outputs:
            await caller.receive()
        await caller.aclose()
        await is_idle(here, answer)


async def test_a_caller_that_leaves_before_its_body_is_complete_asks_for_nothing() -> None:
    async with mesh() as here:
        caller = await connect(here)
        body = chat_body()
        await caller.send(chat_head(body) + body[:-1])
        await caller.aclose()
        assert (await here.http.get("/livez")).status_code == 200


async def test_a_caller_that_reads_nothing_stops_the_mesh_and_is_cut_off() -> None:
    def outcomes() -> float:
        labels = {"route": "/v1/chat/completions", "outcome": "slow_consumer"}
        return REGISTRY.get_sample_value("omni_stream_outcomes_total", labels) or 0.0

    before = outcomes()
    async with mesh(stall_timeout="500ms", output_credits=4) as here:
        pieces = 2000
        answer = here.coordinator.script(Admit(), *[AudioOutput(PCM, 24_000)] * pieces, Finish())
        with socket.socket() as caller:
            # A small window, so that little fits between the two ends.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", here.port))
            body = chat_body(stream=True, modalities=["text", "audio"], audio={"voice": "Ethan", "format": "pcm16"})
            caller.sendall(chat_head(body) + body)
            with anyio.fail_after(10):
                await answer.cancelled.wait()
            await answer.ended.wait()
        # What the kernel took of the socket, some megabytes at most, and one window of credits.
        assert answer.sent < pieces / 4
        assert here.gateway.client.live == 0
    assert outcomes() == before + 1


async def test_a_unary_caller_that_reads_nothing_is_cut_off_as_well() -> None:
    async with mesh(stall_timeout="300ms") as here:
        answer = here.coordinator.script(Admit(), *[AudioOutput(PCM, 24_000)] * 400, Finish())
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", here.port))
            body = chat_body(modalities=["text", "audio"], audio={"voice": "Ethan", "format": "pcm16"})
            caller.sendall(chat_head(body) + body)
            await answer.ended.wait()
            poll = select.poll()
            poll.register(caller, 0)  # only what is always reported: the other end has reset the connection
            assert await anyio.to_thread.run_sync(poll.poll, 10_000)
        assert here.gateway.client.live == 0


async def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    async with mesh(ping_interval="50ms") as here:
        here.coordinator.script(Admit(), TextOutput("a"), gate := anyio.Event(), TextOutput("b"), Finish())
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with here.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = [line async for line in _until_ping(reply, gate)]
    assert ": ping" in lines
    texts = [json.loads(line[6:])["choices"][0]["delta"].get("content") for line in lines if line.startswith("data: {")]
    assert [t for t in texts if t] == ["a", "b"]


async def _until_ping(reply: httpx2.Response, gate: anyio.Event) -> AsyncIterator[str]:
    async for line in reply.aiter_lines():
        if line.startswith(": ping"):
            gate.set()
        if line:
            yield line


async def test_half_a_head_is_given_up_after_a_while() -> None:
    async with mesh(head_timeout="100ms") as here:
        for beginning in (b"", b"GET /livez HTTP/1.1\r\nhost: "):
            caller = await connect(here)
            if beginning:
                await caller.send(beginning)
            with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await caller.receive()
            await caller.aclose()


async def test_half_a_body_is_given_up_after_a_while() -> None:
    async with mesh(body_timeout="100ms") as here:
        caller = await connect(here)
        await caller.send(chat_head(b"{", length=100) + b"{")
        with anyio.fail_after(5):
            reply = await caller.receive()
        await caller.aclose()
    assert reply.startswith(b"HTTP/1.1 408")
    assert b'"code":"timeout"' in reply


async def test_what_is_no_http_gets_a_body_of_the_usual_form() -> None:
    async with mesh() as here:
        for nonsense in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000):
            caller = await connect(here)
            await caller.send(nonsense)
            with anyio.fail_after(5):
                reply = await caller.receive()
            await caller.aclose()
            head, _, body = reply.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400")
            assert b"x-request-id: req_" in head
            assert orjson.loads(body)["error"]["type"] == "invalid_request_error"


async def test_requests_go_to_the_coordinator_with_the_fewest() -> None:
    status = pipeline_status(MODEL)
    async with (
        fake_coordinator(status) as one,
        fake_coordinator(status) as two,
        running(one.address, two.address) as gateway,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as http,
        anyio.create_task_group() as tasks,
    ):
        await until(gateway, lambda: gateway.client.connected == 2)
        gate = anyio.Event()
        answers = [c.script(Admit(), gate, TextOutput("hi"), Finish()) for c in (one, two)]
        for _ in answers:
            tasks.start_soon(_post, http)
        for answer in answers:
            with anyio.fail_after(5):
                await answer.submitted.wait()
        gate.set()


async def _post(http: httpx2.AsyncClient) -> None:
    reply = await http.post("/v1/chat/completions", json=orjson.loads(chat_body()))
    assert reply.status_code == 200


async def test_a_drain_lets_what_runs_finish_and_accepts_nothing_new() -> None:
    async with mesh() as here, anyio.create_task_group() as tasks:
        answer = here.coordinator.script(Admit(), gate := anyio.Event(), TextOutput("hi"), Finish())
        replies: list[httpx2.Response] = []

        async def call() -> None:
            replies.append(await here.chat())

        tasks.start_soon(call)
        await answer.submitted.wait()
        async with anyio.create_task_group() as drain:
            drain.start_soon(here.gateway.drain, Deadline.after(20))
            with anyio.fail_after(5):
                await _refuses_connections(here)
            gate.set()
    assert replies[0].json()["choices"][0]["message"]["content"] == "hi"


async def _refuses_connections(here: Mesh) -> None:
    while True:
        try:
            caller = await connect(here)
        except OSError:
            return
        await caller.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drain_tells_who_could_not_finish(stream: bool) -> None:
    async with mesh() as here, anyio.create_task_group() as tasks:
        answer = here.coordinator.script(Admit(), *[TextOutput("hi")] * stream, anyio.Event())
        replies: list[httpx2.Response] = []

        async def call() -> None:
            replies.append(await here.chat(stream=stream))

        tasks.start_soon(call)
        await answer.submitted.wait()
        with anyio.fail_after(5):
            await here.gateway.drain(Deadline.after(1.2))
        await answer.cancelled.wait()
    assert '"code":"draining"' in replies[0].text
    assert replies[0].status_code == (200 if stream else 503)
