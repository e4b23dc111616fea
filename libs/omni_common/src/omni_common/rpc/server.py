"""A gRPC server as every service runs it: TLS, health, limits, keepalive, errors; reflection where it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection as grpc_reflection

from omni_common.rpc.channel import keepalive_options
from omni_common.rpc.contract import MAX_MESSAGE
from omni_common.rpc.door import Allowed, Arrivals, DoorInterceptor
from omni_common.rpc.interceptors import ErrorInterceptor
from omni_common.rpc.tls import MeshTls

_OVERALL = ""


class RpcServer:
    """A bound server: add servicers to `grpc`, then `start` it. All services are NOT_SERVING until told otherwise."""

    def __init__(self, server: grpc.aio.Server, port: int, services: Sequence[str]) -> None:
        self.grpc = server
        self.port = port
        self._services = tuple(services)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    async def start(self) -> None:
        await self.set_serving(False)
        await self.grpc.start()

    async def set_serving(self, serving: bool, service: str | None = None) -> None:
        """What health checks hear about one service, or about all of them and the server."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        names = (_OVERALL, *self._services) if service is None else (service,)
        for name in names:
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuses new RPCs at once; running ones have `grace` seconds to end by themselves."""
        await self.set_serving(False)
        await self.grpc.stop(grace)


async def open_server(
    address: str,
    *,
    services: Sequence[str],
    tls: MeshTls | None = None,
    allowed: Allowed = MappingProxyType({}),
    reflection: bool = False,
    max_message: int = MAX_MESSAGE,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> RpcServer:
    """Binds host:port (port 0: any) for the services of these full names. Raises OSError when it is taken.

    With `tls`, whoever connects needs a certificate of the mesh, and for some calls that of an `allowed` component.
    """
    arrivals = Arrivals(asyncio.get_running_loop())
    doors = () if tls is None else (DoorInterceptor(allowed, arrivals.proven),)
    server = grpc.aio.server(
        interceptors=(*interceptors, ErrorInterceptor(), *doors),
        options=[
            *keepalive_options(),
            ("grpc.max_send_message_length", max_message),
            ("grpc.max_receive_message_length", max_message),
            ("grpc.so_reuseport", 0),  # else a second process could bind the port and take half of the connections
        ],
    )
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, tls.server_credentials(arrivals.began))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}; another process may have the port") from error
    if reflection:
        grpc_reflection.enable_server_reflection((*services, health.SERVICE_NAME, grpc_reflection.SERVICE_NAME), server)
    return RpcServer(server, port, services)
