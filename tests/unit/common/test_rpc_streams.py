"""Streams over real gRPC on loopback: both directions, every way to end, errors as statuses, health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from omni.common.v1 import failure_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1 import coordinator_pb2_grpc as pb_grpc
from omni_common.errors import Internal, InvalidRequest, OmniError, Overloaded, Reason
from omni_common.rpc.channel import open_channel
from omni_common.rpc.duplex import Duplex, PeerGone, server_duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.server import RpcServer, open_server
from omni_common.rpc.session import client_session, exchange
from omni_common.rpc.status import translate_rpc_errors

pytestmark = pytest.mark.anyio

SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
Handler = Callable[[Any, Any], Awaitable[None]]


class Coordinator(pb_grpc.CoordinatorServiceServicer):
    """Serves what a test gives it."""

    def __init__(self, connect: Handler | None = None, generate: Handler | None = None) -> None:
        self._connect = connect
        self._generate = generate

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        assert self._connect is not None
        await self._connect(request_iterator, context)

    async def Generate(self, request: Any, context: Any) -> None:  # type: ignore[override]
        assert self._generate is not None
        await self._generate(request, context)

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


@asynccontextmanager
async def serving(coordinator: Coordinator, *, reflection: bool = False) -> AsyncIterator[RpcServer]:
    server = await open_server("127.0.0.1:0", services=(SERVICE,), reflection=reflection)
    pb_grpc.add_CoordinatorServiceServicer_to_server(coordinator, server.grpc)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def stub_of(server: RpcServer) -> AsyncIterator[pb_grpc.CoordinatorServiceAsyncStub]:
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield pb_grpc.CoordinatorServiceStub(channel)


def cancel(ticket: int) -> pb.GatewayEvent:
    return pb.GatewayEvent(ticket=ticket, cancel=pb.Cancel())


def answer(ticket: int) -> pb.GatewayNotice:
    return pb.GatewayNotice(ticket=ticket, failed=failure_pb2.Failure(message="gone"))


def ignore(frame: pb.ConnectRequest) -> None:
    """What arrives is of no interest."""


async def echo(_: Any, context: Any) -> None:
    """Answers every event with a notice, in frames, until the caller ends its direction."""
    duplex = server_duplex(context)
    out: FrameWriter[pb.GatewayNotice] = FrameWriter()

    def handle(frame: pb.ConnectRequest) -> None:
        for event in frame.events:
            out.put(answer(event.ticket), lane=str(event.ticket))

    await exchange(duplex, out, frame=lambda notices: pb.ConnectResponse(notices=notices), handle=handle)


async def test_events_and_their_answers_cross_in_frames_and_both_ends_finish() -> None:
    tickets: list[int] = []
    async with serving(Coordinator(echo)) as server, stub_of(server) as stub:
        out: FrameWriter[pb.GatewayEvent] = FrameWriter()
        for ticket in range(500):
            out.put(cancel(ticket), lane=str(ticket))

        def handle(frame: pb.ConnectResponse) -> None:
            tickets.extend(notice.ticket for notice in frame.notices)
            if len(tickets) == 500:
                out.close()

        call = stub.Connect()
        with anyio.fail_after(10):
            async with client_session(call) as duplex:
                await exchange(duplex, out, frame=lambda events: pb.ConnectRequest(events=events), handle=handle)
        assert await call.code() is grpc.StatusCode.OK
    assert sorted(tickets) == list(range(500))


async def test_leaving_a_session_ends_the_stream_without_cancelling_it() -> None:
    ended = anyio.Event()

    async def connect(_: Any, context: Any) -> None:
        duplex = server_duplex(context)
        while await duplex.read() is not None:
            pass
        ended.set()

    async with serving(Coordinator(connect)) as server, stub_of(server) as stub:
        call = stub.Connect()
        with anyio.fail_after(10):
            async with client_session(call) as duplex:
                await duplex.write(pb.ConnectRequest(events=[cancel(1)]))
            await ended.wait()
        assert await call.code() is grpc.StatusCode.OK


async def test_a_server_that_closes_its_writer_ends_the_stream_while_the_client_is_silent() -> None:
    async def connect(_: Any, context: Any) -> None:
        duplex = server_duplex(context)
        out: FrameWriter[pb.GatewayNotice] = FrameWriter()
        out.put(answer(7))
        out.close()
        await exchange(
            duplex, out, frame=lambda notices: pb.ConnectResponse(notices=notices), handle=lambda frame: None
        )

    async with serving(Coordinator(connect)) as server, stub_of(server) as stub:
        call = stub.Connect()
        with anyio.fail_after(10):
            async with client_session(call) as duplex:
                frame = await duplex.read()
                assert frame is not None
                assert [notice.ticket for notice in frame.notices] == [7]
                assert await duplex.read() is None
                with pytest.raises(PeerGone):
                    await duplex.write(pb.ConnectRequest())
        assert await call.code() is grpc.StatusCode.OK


async def test_a_server_that_dies_is_gone_for_reader_and_writer() -> None:
    connected = anyio.Event()

    async def connect(_: Any, context: Any) -> None:
        connected.set()
        while await server_duplex(context).read() is not None:
            pass

    async with serving(Coordinator(connect)) as server, stub_of(server) as stub:
        with anyio.fail_after(10):
            async with client_session(stub.Connect()) as duplex:
                await duplex.write(pb.ConnectRequest(events=[cancel(1)]))
                await connected.wait()
                await server.stop(0)
                with pytest.raises(PeerGone):
                    await duplex.read()
                with pytest.raises(PeerGone):
                    await duplex.write(pb.ConnectRequest())


async def test_nobody_listening_is_peer_gone() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        with anyio.fail_after(10):
            async with client_session(pb_grpc.CoordinatorServiceStub(channel).Connect()) as duplex:
                with pytest.raises(PeerGone):
                    await duplex.read()


async def test_a_client_that_vanishes_cancels_the_handler_and_is_gone_for_a_late_writer() -> None:
    seen: list[BaseException] = []
    handled = anyio.Event()

    async def write_late(duplex: Duplex[pb.ConnectRequest, pb.ConnectResponse], left: anyio.Event) -> None:
        with anyio.CancelScope(shield=True):
            await left.wait()
            try:
                await duplex.write(pb.ConnectResponse(notices=[answer(2)]))
            except PeerGone as error:
                seen.append(error)
            handled.set()

    async def connect(_: Any, context: Any) -> None:
        duplex: Duplex[pb.ConnectRequest, pb.ConnectResponse] = server_duplex(context)
        await duplex.write(pb.ConnectResponse(notices=[answer(1)]))
        left = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_late, duplex, left)
            try:
                await duplex.read()
            finally:
                left.set()

    async with serving(Coordinator(connect)) as server, stub_of(server) as stub:
        call = stub.Connect()
        with anyio.fail_after(10):
            await call.read()
            call.cancel()
            await handled.wait()
    assert [type(error) for error in seen] == [PeerGone]


@pytest.mark.parametrize(
    "raised",
    [
        InvalidRequest("The image is broken.", param="messages[0].parts[1]"),
        Overloaded("9 requests wait.", stage="thinker"),
        Internal(),
    ],
    ids=lambda error: error.reason,
)
async def test_a_handlers_error_arrives_with_its_facts(raised: OmniError) -> None:
    async def generate(request: Any, context: Any) -> None:
        await context.write(pb.GenerateResponse(admitted=pb.Admitted(request_id="r1")))
        raise raised

    async with serving(Coordinator(generate=generate)) as server, stub_of(server) as stub:
        with pytest.raises(OmniError) as caught, translate_rpc_errors():
            async for _ in stub.Generate(pb.GenerateRequest(), timeout=10):
                pass
    assert vars(caught.value) == vars(raised)


async def test_an_error_inside_a_task_group_arrives_as_itself() -> None:
    async def generate(request: Any, context: Any) -> None:
        async with anyio.create_task_group():
            raise InvalidRequest("No.", param="x")

    async with serving(Coordinator(generate=generate)) as server, stub_of(server) as stub:
        with pytest.raises(OmniError) as caught, translate_rpc_errors():
            await stub.Generate(pb.GenerateRequest(), timeout=10).read()
    assert caught.value.reason is Reason.INVALID_REQUEST


async def test_an_unknown_error_is_internal_tells_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def generate(request: Any, context: Any) -> None:
        raise ZeroDivisionError("a secret detail")

    async with serving(Coordinator(generate=generate)) as server, stub_of(server) as stub:
        with pytest.raises(OmniError) as caught, translate_rpc_errors():
            await stub.Generate(pb.GenerateRequest(), timeout=10).read()
    assert caught.value.reason is Reason.INTERNAL
    assert "secret" not in caught.value.message
    assert [record.message for record in caplog.records] == ["rpc failed"]


async def test_a_refusal_in_a_stream_reaches_the_reader_as_the_peers_own_error() -> None:
    async def connect(_: Any, context: Any) -> None:
        raise InvalidRequest("Contract version 2 is not spoken here.")

    async with (
        serving(Coordinator(connect)) as server,
        stub_of(server) as stub,
        client_session(stub.Connect()) as duplex,
    ):
        with pytest.raises(OmniError) as caught, anyio.fail_after(10):
            await duplex.read()
    assert caught.value.message == "Contract version 2 is not spoken here."


async def test_health_is_not_serving_until_it_is_said() -> None:
    async with serving(Coordinator()) as server, open_channel(f"127.0.0.1:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            reply = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            return int(reply.status)

        up, down = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert [await status(""), await status(SERVICE)] == [down, down]
        await server.set_serving(True)
        assert [await status(""), await status(SERVICE)] == [up, up]
        await server.set_serving(False, SERVICE)
        assert [await status(""), await status(SERVICE)] == [up, down]


async def test_reflection_lists_the_services_where_it_is_asked_for() -> None:
    async with serving(Coordinator(), reflection=True) as server, open_channel(f"127.0.0.1:{server.port}") as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=10)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        reply = await call.read()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    assert SERVICE in {service.name for service in reply.list_services_response.service}


async def test_a_port_that_is_taken_is_refused() -> None:
    async with serving(Coordinator()) as server:
        with pytest.raises(OSError, match="cannot listen"):
            await open_server(f"127.0.0.1:{server.port}", services=())
