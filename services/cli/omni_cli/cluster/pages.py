"""The pages of metrics of a release's processes, by whichever way leads to them.

The API server's proxy comes to a pod from outside, where a NetworkPolicy may stop it; a port-forward ends inside the
pod, and is a right of its own. The way that led to a process is tried first for the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from omni_cli.cluster.access import CannotReach, Cluster, NotGiven
from omni_cli.cluster.forward import NotForwarded
from omni_cli.cluster.pods import MetricsPort
from omni_cli.top.exposition import Page, parse_page

# One process that hangs must not hold up what the others tell; what a NetworkPolicy drops hangs, too.
_PATIENCE = 3.0
_TIMEOUT = 4.0
_AT_ONCE = 8
_PATH = "metrics"
Way = Callable[[MetricsPort], Awaitable[str]]


class Pages:
    """Asks again and again."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ways: list[Way] = [self._by_proxy, self._by_forward]

    async def of(self, ports: Sequence[MetricsPort]) -> dict[str, Page | None]:
        """By the processes' names; None of those that do not answer."""
        pages: dict[str, Page | None] = dict.fromkeys((port.name for port in ports), None)
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def ask(port: MetricsPort) -> None:
            async with limiter:
                pages[port.name] = await self._page(port)

        async with anyio.create_task_group() as asking:
            for port in ports:
                asking.start_soon(ask, port)
        return pages

    async def _page(self, port: MetricsPort) -> Page | None:
        for way in tuple(self._ways):
            with anyio.move_on_after(_TIMEOUT):
                try:
                    page = parse_page(await way(port))
                except (
                    CannotReach,
                    NotGiven,
                    NotForwarded,
                    ValueError,
                ):  # it begins or ends, or is kept from us
                    continue
                self._ways.sort(key=lambda one: one != way)
                return page
        return None

    async def _by_proxy(self, port: MetricsPort) -> str:
        return await self._cluster.text(port.path, patience=_PATIENCE)

    async def _by_forward(self, port: MetricsPort) -> str:
        return await self._cluster.forwarded(port.pod, port.port, _PATH)
