"""Whom a client takes over real gRPC, and that new certificates are used without a restart."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest
from tests.unit.common.tls.echo import attach, counted, failure, serving, tls
from tests.unit.relay.wire.authority import DAY, Authority, Files

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1 import coordinator_pb2_grpc
from omni_common.component import Component
from omni_common.errors import Reason
from omni_common.rpc.channel import open_channel
from omni_common.rpc.tls_refusal import SENTENCES, TlsRefusal, read_refusal

pytestmark = pytest.mark.anyio


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
