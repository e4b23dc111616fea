"""Whom a server takes over real gRPC, who may call what, and what is said and counted about the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import anyio
import grpc
import grpc.aio
import pytest
from grpc.experimental import session_cache
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.unit.common.tls.echo import SERVICE, Echo, attach, counted, failure, serving, tls
from tests.unit.relay.wire.authority import DAY, Authority, Files

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1 import coordinator_pb2_grpc
from omni_common.component import Component
from omni_common.errors import Reason
from omni_common.rpc.channel import open_channel
from omni_common.rpc.door import Arrivals, DoorInterceptor
from omni_common.rpc.server import open_server
from omni_common.rpc.tls_refusal import SENTENCES, TlsRefusal, read_refusal

pytestmark = pytest.mark.anyio


async def test_a_component_gets_in_and_reaches_what_is_for_it(mine: dict[Component, Files]) -> None:
    async with serving(tls(mine[Component.COORDINATOR])) as server:
        await attach(server.port, tls(mine[Component.STAGE]))


async def test_another_component_is_told_whose_call_it_is_and_counted(
    mine: dict[Component, Files], caplog: pytest.LogCaptureFixture
) -> None:
    before = counted(TlsRefusal.ROLE)
    async with serving(tls(mine[Component.COORDINATOR])) as server:
        for _ in range(2):
            refusal = await failure(lambda: attach(server.port, tls(mine[Component.GATEWAY])))
            assert refusal.reason is Reason.FORBIDDEN
            assert refusal.message == "Attach is for omni-stage; the caller's certificate has omni-gateway."
    assert counted(TlsRefusal.ROLE) == before + 2
    assert [vars(r)["names"] for r in caplog.records if r.message == SENTENCES[TlsRefusal.ROLE]] == ["omni-gateway"]


async def test_any_certificate_of_the_mesh_may_generate(authority: Authority, mine: dict[Component, Files]) -> None:
    visitor = tls(authority.issue("somebody"))
    async with (
        serving(tls(mine[Component.COORDINATOR])) as server,
        open_channel(f"127.0.0.1:{server.port}", tls=visitor) as channel,
    ):
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        assert [answer async for answer in stub.Generate(pb.GenerateRequest())] == [pb.GenerateResponse()]


@pytest.mark.parametrize("what", ["foreign", "expired", "early", "none", "plain"])
async def test_whoever_has_no_good_certificate_gets_nowhere(
    what: str, authority: Authority, mine: dict[Component, Files], tmp_path: Path
) -> None:
    match what:
        case "foreign":
            theirs = Authority(tmp_path, "other-ca").issue("omni-stage")
        case "expired":
            theirs = authority.issue("omni-stage", folder=tmp_path, begins=-2 * DAY, ends=-DAY)
        case _:
            theirs = authority.issue("omni-stage", folder=tmp_path, begins=DAY, ends=2 * DAY)
    shown = (None, None) if what == "none" else (theirs.key.read_bytes(), theirs.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(mine[Component.STAGE].ca.read_bytes(), *shown)
    async with serving(tls(mine[Component.COORDINATOR])) as server:
        address, named = f"127.0.0.1:{server.port}", [("grpc.ssl_target_name_override", "omni-coordinator")]
        if what == "plain":
            channel = grpc.aio.insecure_channel(address)
        else:
            channel = grpc.aio.secure_channel(address, credentials, named)
        async with channel:
            call = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Generate(pb.GenerateRequest())
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert read_refusal(await call.details()) is TlsRefusal.CLOSED


async def test_a_session_that_goes_on_from_an_earlier_one_is_refused(mine: dict[Component, Files]) -> None:
    """Whose certificate has expired since could come in that way: in such a handshake nobody looks at it."""
    before = counted(TlsRefusal.RESUMED)
    stage = tls(mine[Component.STAGE])
    cached = ("grpc.ssl_session_cache", session_cache.ssl_session_cache_lru(4))  # type: ignore[no-untyped-call]
    options = [("grpc.ssl_target_name_override", "omni-coordinator"), ("grpc.use_local_subchannel_pool", 1), cached]
    codes = []
    async with serving(tls(mine[Component.COORDINATOR])) as server:
        for _ in range(2):
            address = f"127.0.0.1:{server.port}"
            async with grpc.aio.secure_channel(address, stage.channel_credentials(), options) as channel:
                call = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Generate(pb.GenerateRequest())
                with suppress(grpc.aio.AioRpcError):
                    while await call.read() is not grpc.aio.EOF:
                        pass
                codes.append(await call.code())
    assert codes == [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED]
    assert counted(TlsRefusal.RESUMED) == before + 1


async def test_a_foreign_client_is_counted_at_the_server_and_a_good_one_is_not(
    mine: dict[Component, Files], tmp_path: Path
) -> None:
    """With less time for a proof than components get."""
    before = counted(TlsRefusal.UNPROVEN)
    arrivals = Arrivals(asyncio.get_running_loop(), proof=2.0)
    server = grpc.aio.server(interceptors=(DoorInterceptor({}, arrivals.proven),))
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(Echo(), server)
    port = server.add_secure_port("127.0.0.1:0", tls(mine[Component.COORDINATOR]).server_credentials(arrivals.began))
    await server.start()
    stranger = Authority(tmp_path, "other-ca").issue("omni-stage")  # that knows the mesh, which does not know it
    pem = [path.read_bytes() for path in (mine[Component.STAGE].ca, stranger.key, stranger.cert)]
    named = [("grpc.ssl_target_name_override", "omni-coordinator")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*pem), named) as channel:
        await attach(port, tls(mine[Component.STAGE]))
        call = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Generate(pb.GenerateRequest())
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    with anyio.fail_after(20):
        while counted(TlsRefusal.UNPROVEN) == before:  # noqa: ASYNC110  # a counter has no event
            await anyio.sleep(0.01)
    assert counted(TlsRefusal.UNPROVEN) == before + 1
    await server.stop(0)


@pytest.mark.parametrize(
    ("component", "code"),
    [(Component.STAGE, grpc.StatusCode.OK), (Component.GATEWAY, grpc.StatusCode.PERMISSION_DENIED)],
)
async def test_what_others_wrote_as_a_generator_is_guarded_too(
    component: Component, code: grpc.StatusCode, mine: dict[Component, Files]
) -> None:
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    server = await open_server(
        "127.0.0.1:0",
        services=[SERVICE],
        tls=tls(mine[Component.COORDINATOR]),
        allowed={reflection: frozenset({Component.STAGE})},
        reflection=True,
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}", tls=tls(mine[component])) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=10)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the code below says it as well
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            await call.read()
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        assert await call.code() is code
    await server.stop(0)
