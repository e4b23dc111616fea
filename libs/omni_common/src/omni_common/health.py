"""What the kubelet asks: `readiness`, and `liveness`, over plain gRPC on a port of their own.

They are answered from a thread, like /metrics: where the event loop is blocked, an answer from the loop would never
come, and that is just what liveness has to say. A heart is what beats in this process and nowhere else, such as the
event loop or a stage's scheduler. No peer's health is part of it: one broken process would have all others restarted.

A process that cannot start answers with an error that says why, which the kubelet makes an event: `last_words`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from omni_common.address import join_host_port
from omni_common.clock import Clock, monotonic

logger = logging.getLogger(__name__)

READINESS = "readiness"
LIVENESS = "liveness"

PULSE = 0.5
"""Seconds between two beats of the event loop."""

_ASKERS = 16
_CONNECTION = 5.0
"""Seconds that a connection lives. A call whose request never comes holds a thread for as long, and one thread alone
would be all that it takes to have the kubelet kill the process."""
_GRACE = 0.5


@dataclass(frozen=True, slots=True)
class _Heart:
    what: str
    last: Callable[[], float]
    limit: float


class Hearts:
    """What has to beat for the process to be alive. Any thread may look."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._hearts: tuple[_Heart, ...] = ()
        self._silent: frozenset[str] = frozenset()

    def watch(self, what: str, last: Callable[[], float], limit: float) -> None:
        """`last()` is when it beat last; more than `limit` seconds ago, it stands still."""
        self._hearts = (*self._hearts, _Heart(what, last, limit))

    def beat(self) -> bool:
        """Whether all do; says once which one does not."""
        now = self._clock()
        silent = frozenset(heart.what for heart in self._hearts if now - heart.last() > heart.limit)
        for what in silent - self._silent:
            logger.error("what has to go round in this process stands still", extra={"what": what})
        self._silent = silent
        return not silent


class LoopPulse:
    """The event loop's heart. Made when the loop is about to run."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self.last = clock()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.last = self._clock()
            await anyio.sleep(PULSE)


@contextmanager
def serve_health(
    host: str,
    port: int | None,
    *,
    ready: Callable[[], bool],
    alive: Callable[[], bool],
    failed: Callable[[], str] = str,
) -> Iterator[int | None]:
    """Gives the port it took. `failed` is why it will never be ready. Raises OSError when the port is another's."""
    if port is None:
        yield None
        return
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_ASKERS, thread_name_prefix="health"),
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 4096),
            ("grpc.max_concurrent_streams", _ASKERS // 4),
            ("grpc.max_connection_age_ms", int(_CONNECTION * 1000)),
            ("grpc.max_connection_age_grace_ms", int(_GRACE * 1000)),
        ],
        maximum_concurrent_rpcs=_ASKERS,
    )
    probes = _Probes({"": ready, READINESS: ready, LIVENESS: alive}, failed)
    health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    address = join_host_port(host, port)
    try:
        taken = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot serve the probes on {address}; another process may have the port") from error
    server.start()
    try:
        yield taken
    finally:
        server.stop(_GRACE).wait(2 * _GRACE)


class _Probes(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Looks when it is asked. `Watch` stays unimplemented: each watcher would hold a thread that probes need."""

    def __init__(self, services: dict[str, Callable[[], bool]], failed: Callable[[], str]) -> None:
        self._services = services
        self._failed = failed

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        look = self._services.get(request.service)
        if look is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"There are {READINESS} and {LIVENESS} to ask for.")
            return health_pb2.HealthCheckResponse()
        if request.service != LIVENESS and (why := self._failed()):
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            context.set_details(why)
            return health_pb2.HealthCheckResponse()
        status = health_pb2.HealthCheckResponse.ServingStatus
        return health_pb2.HealthCheckResponse(status=status.SERVING if look() else status.NOT_SERVING)

    def List(self, request: Any, context: grpc.ServicerContext) -> Any:
        status = health_pb2.HealthCheckResponse.ServingStatus
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status.SERVING if look() else status.NOT_SERVING)
                for name, look in self._services.items()
            }
        )
