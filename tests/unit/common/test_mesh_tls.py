"""TLS between components over real gRPC: who gets in, who may call what, what is said and counted about the others."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import grpc
import grpc.aio
import pytest
from grpc.experimental import session_cache
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic_settings import SettingsConfigDict
from tests.unit.relay.wire.authority import DAY, Authority, Files

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1 import coordinator_pb2_grpc
from omni_common.certificates import Certificates
from omni_common.component import Component
from omni_common.errors import OmniError, Reason
from omni_common.lifecycle import CannotStart
from omni_common.rpc.channel import open_channel
from omni_common.rpc.door import PROOF, Arrivals, DoorInterceptor
from omni_common.rpc.duplex import server_duplex
from omni_common.rpc.server import RpcServer, open_server
from omni_common.rpc.session import client_session
from omni_common.rpc.tls import MeshTls, mesh_tls
from omni_common.rpc.tls_refusal import SENTENCES, TlsRefusal, read_refusal
from omni_common.settings import ServiceSettings, why_refused
from omni_common.telemetry import names

pytestmark = pytest.mark.anyio

SERVICE = "omni.coordinator.v1.CoordinatorService"
ALLOWED = {f"/{SERVICE}/Attach": frozenset({Component.STAGE}), f"/{SERVICE}/Connect": frozenset({Component.GATEWAY})}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mesh"), "mesh-ca")


@pytest.fixture(scope="module")
def mine(authority: Authority) -> dict[Component, Files]:
    return {component: authority.issue(component) for component in Component}


def tls(files: Files) -> MeshTls:
    return MeshTls(Certificates(files.cert, files.key, files.ca))


def counted(reason: TlsRefusal) -> float:
    return float(names.TLS_REFUSALS.labels(reason)._value.get())


class Echo(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Says one frame to whoever gets as far as this."""

    async def Attach(self, _: object, context: object) -> None:  # type: ignore[override]
        await server_duplex(context).write(pb.AttachResponse())  # type: ignore[arg-type]

    async def Connect(self, _: object, context: object) -> None:  # type: ignore[override]
        await server_duplex(context).write(pb.ConnectResponse())  # type: ignore[arg-type]

    async def Generate(self, _: object, context: object) -> None:  # type: ignore[override]
        await context.write(pb.GenerateResponse())  # type: ignore[attr-defined]


@asynccontextmanager
async def serving(credentials: MeshTls | None) -> AsyncIterator[RpcServer]:
    server = await open_server("127.0.0.1:0", services=[SERVICE], tls=credentials, allowed=ALLOWED)
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(Echo(), server.grpc)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def attach(port: int, credentials: MeshTls) -> None:
    """As a session of a stage does. Raises OmniError."""
    address = f"127.0.0.1:{port}"
    async with open_channel(address, tls=credentials, peer=Component.COORDINATOR) as channel:
        call = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Attach()
        async with client_session(call, tls=credentials, address=address) as duplex:
            assert await duplex.read() is not None


async def failure(attempt: Callable[[], object]) -> OmniError:
    try:
        await attempt()  # type: ignore[misc]
    except OmniError as error:
        return error
    raise AssertionError("it did not fail")


# Settings


class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OMNI_THING_")


def test_a_part_of_tls_is_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_THING_TLS_CERT", "cert.pem")
    with pytest.raises(ValueError, match="belong together") as refused:
        ThingSettings()
    assert why_refused(ThingSettings, refused.value) == (
        "OMNI_THING_* is refused: TLS_CERT, TLS_KEY and TLS_CA belong together: give all three or none."
    )


def test_without_settings_the_mesh_speaks_plainly_and_with_bad_files_it_does_not_start(
    authority: Authority, tmp_path: Path
) -> None:
    assert mesh_tls(ThingSettings()) is None
    old = authority.issue("omni-stage", folder=tmp_path, begins=-2 * DAY, ends=-DAY)
    with pytest.raises(CannotStart, match=r"of this process cannot be used: .*certificate has expired\.$"):
        mesh_tls(ThingSettings(tls_cert=old.cert, tls_key=old.key, tls_ca=old.ca))
    old.key.unlink()
    with pytest.raises(CannotStart, match=r"omni-stage\.key cannot be read \(No such file or directory\)\.$"):
        mesh_tls(ThingSettings(tls_cert=old.cert, tls_key=old.key, tls_ca=old.ca))


def test_metrics_say_when_the_certificate_expires_also_after_it_has_changed(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue("omni-stage", folder=tmp_path)
    mesh_tls(ThingSettings(tls_cert=files.cert, tls_key=files.key, tls_ca=files.ca))
    told = names.CERTIFICATE_EXPIRY.labels("mesh").collect
    (metric,) = told()
    before = metric.samples[0].value
    authority.issue("omni-stage", folder=tmp_path, ends=10 * DAY)
    (metric,) = told()
    assert metric.samples[0].value - before == pytest.approx(9 * DAY.total_seconds(), abs=60)


# Whom a server takes


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


class Hands:
    """An event loop whose time a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[int], None], int]] = []

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        callback()

    def call_later(self, delay: float, callback: Callable[[int], None], begun: int) -> None:
        self._due.append((self.now + delay, callback, begun))

    def move(self, seconds: float) -> None:
        self.now += seconds
        for due, callback, begun in [one for one in self._due if one[0] <= self.now]:
            self._due.remove((due, callback, begun))
            callback(begun)


def test_connections_that_come_to_no_call_are_counted_and_those_that_do_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hands, before = Hands(), counted(TlsRefusal.UNPROVEN)
    arrivals = Arrivals(hands, clock=lambda: hands.now)
    for peer in ("ipv4:10.0.0.1:1", None, "ipv4:10.0.0.1:2", None):
        arrivals.began()
        if peer is not None:
            arrivals.proven(peer)
            arrivals.proven(peer)
    hands.move(PROOF - 1)
    assert counted(TlsRefusal.UNPROVEN) == before
    hands.move(1)
    assert counted(TlsRefusal.UNPROVEN) == before + 2
    arrivals.began()
    hands.move(PROOF)
    assert counted(TlsRefusal.UNPROVEN) == before + 3
    assert [record.message for record in caplog.records] == [SENTENCES[TlsRefusal.UNPROVEN]]


async def test_a_foreign_client_is_counted_at_the_server_and_a_good_one_is_not(
    mine: dict[Component, Files], tmp_path: Path
) -> None:
    """With less time for a proof than components get."""
    before = counted(TlsRefusal.UNPROVEN)
    arrivals = Arrivals(asyncio.get_running_loop(), proof=0.5)
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


# Whom a client takes


@pytest.mark.parametrize("what", [TlsRefusal.EXPIRED, TlsRefusal.FOREIGN, TlsRefusal.NAME, TlsRefusal.PLAINTEXT])
async def test_a_server_with_a_bad_certificate_is_left_counted_and_logged_once(
    what: TlsRefusal,
    authority: Authority,
    mine: dict[Component, Files],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    match what:
        case TlsRefusal.EXPIRED:
            bad = authority.issue("omni-coordinator", folder=tmp_path, begins=-2 * DAY, ends=-DAY)
        case TlsRefusal.FOREIGN:
            bad = Authority(tmp_path, "other-ca").issue("omni-coordinator")
        case _:
            bad = mine[Component.STAGE]
    server = grpc.aio.server()
    pair = (bad.key.read_bytes(), bad.cert.read_bytes())
    if what is TlsRefusal.PLAINTEXT:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    me, before = tls(mine[Component.STAGE]), counted(what)
    for _ in range(2):
        assert (await failure(lambda: attach(port, me))).reason is Reason.STAGE_UNAVAILABLE
    await server.stop(0)
    assert counted(what) == before + 2
    told = [(r.message, vars(r)["peer"]) for r in caplog.records if r.levelno == logging.WARNING]
    assert told == [(SENTENCES[what], f"127.0.0.1:{port}")]


async def test_a_peer_that_nobody_listens_at_is_no_refusal(mine: dict[Component, Files]) -> None:
    async with serving(None) as server:
        pass
    before = {reason: counted(reason) for reason in TlsRefusal}
    await failure(lambda: attach(server.port, tls(mine[Component.STAGE])))
    assert {reason: counted(reason) for reason in TlsRefusal} == before


@pytest.mark.parametrize(
    ("details", "refusal"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: Connection refused", None),
        ("Socket closed", None),
        ("failed to connect to all addresses; last error: Socket closed", TlsRefusal.CLOSED),
        ("failed to connect to all addresses; Tls handshake failed (X): SSL_ERROR_SSL", TlsRefusal.HANDSHAKE),
        ("failed to connect to all addresses; Tls handshake failed: TLSV1_ALERT_UNKNOWN_CA", TlsRefusal.CLOSED),
    ],
)
def test_what_grpc_says_is_read(details: str, refusal: TlsRefusal | None) -> None:
    assert read_refusal(details) is refusal


# New certificates


async def shown_by(port: int, ours: Files) -> bytes:
    """The certificate that a new connection sees."""
    context = ssl.create_default_context(cafile=str(ours.ca))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(ours.cert, ours.key)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate


async def test_new_files_serve_new_connections_and_live_ones_go_on(
    authority: Authority, mine: dict[Component, Files], tmp_path: Path
) -> None:
    files = authority.issue("omni-coordinator", folder=tmp_path)
    stage = tls(mine[Component.STAGE])
    async with serving(tls(files)) as server, open_channel(f"127.0.0.1:{server.port}", tls=stage) as living:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(living)
        assert [answer async for answer in stub.Generate(pb.GenerateRequest())]
        old = await shown_by(server.port, mine[Component.STAGE])
        authority.issue("omni-coordinator", folder=tmp_path)
        new = await shown_by(server.port, mine[Component.STAGE])
        assert new != old
        assert await shown_by(server.port, mine[Component.STAGE]) == new
        await attach(server.port, stage)
        assert [answer async for answer in stub.Generate(pb.GenerateRequest())]


async def test_a_whole_mesh_moves_to_another_authority(
    authority: Authority, mine: dict[Component, Files], tmp_path: Path
) -> None:
    """Both ends' files change under them; whoever still has the old ones is a stranger then."""
    here = {}
    for component in (Component.STAGE, Component.COORDINATOR):
        (tmp_path / component).mkdir()
        issued = authority.issue(component, folder=tmp_path / component)
        here[component] = Files(issued.cert, issued.key, tmp_path / component / "ca.pem")
        shutil.copy(issued.ca, here[component].ca)
    stage, coordinator = tls(here[Component.STAGE]), tls(here[Component.COORDINATOR])
    async with serving(coordinator) as server:
        await attach(server.port, stage)
        (tmp_path / "next").mkdir()
        following = Authority(tmp_path / "next", "next-ca")
        for component, files in here.items():
            following.issue(component, folder=tmp_path / component)
            shutil.copy(following.ca, files.ca)
        await attach(server.port, stage)
        before = counted(TlsRefusal.FOREIGN)
        await failure(lambda: attach(server.port, tls(mine[Component.STAGE])))
        assert counted(TlsRefusal.FOREIGN) == before + 1
