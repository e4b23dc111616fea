"""A server that whoever gets in can call, and who calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.unit.relay.wire.authority import Files

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1 import coordinator_pb2_grpc
from omni_common.certificates import Certificates
from omni_common.component import Component
from omni_common.errors import OmniError
from omni_common.rpc.channel import open_channel
from omni_common.rpc.duplex import server_duplex
from omni_common.rpc.server import RpcServer, open_server
from omni_common.rpc.session import client_session
from omni_common.rpc.tls import MeshTls
from omni_common.rpc.tls_refusal import TlsRefusal
from omni_common.telemetry import names

SERVICE = "omni.coordinator.v1.CoordinatorService"
ALLOWED = {f"/{SERVICE}/Attach": frozenset({Component.STAGE}), f"/{SERVICE}/Connect": frozenset({Component.GATEWAY})}


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
