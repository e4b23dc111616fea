"""The metrics endpoint of a process, and what every process measures about itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import anyio
from prometheus_client import disable_created_metrics, start_http_server

from omni_common.clock import Clock, monotonic
from omni_common.telemetry import names

_PULSE = 0.5  # seconds between two looks at the event loop


@contextmanager
def serve_metrics(host: str, port: int | None) -> Iterator[int | None]:
    """Serves /metrics from a thread of its own, so that a blocked event loop can be seen. Gives the port it took."""
    if port is None:
        yield None
        return
    # A second series for each counter, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    server, thread = start_http_server(port, host)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def describe_build(service: str) -> None:
    """Says which version of the service runs."""
    names.BUILD_INFO.labels(service, version_of(service)).set(1)


def version_of(service: str) -> str:
    try:
        return version(f"omni-{service}")
    except PackageNotFoundError:
        return "unknown"


async def watch_loop(clock: Clock = monotonic) -> None:
    """Measures how late the loop is, until cancelled."""
    while True:
        due = clock() + _PULSE
        await anyio.sleep(_PULSE)
        names.EVENT_LOOP_LAG_SECONDS.observe(max(0.0, clock() - due))
