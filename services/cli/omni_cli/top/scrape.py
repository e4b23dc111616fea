"""Asks every process of a mesh for its page of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import httpx2

from omni_cli.top.change import Seen, Snapshot
from omni_cli.top.exposition import Page, parse_page
from omni_common.clock import monotonic

# A process that needs longer to say how it is does not answer.
_TIMEOUT = 2.0
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Target:
    """A process to ask, at the URL of its page."""

    name: str
    url: str
    pipeline: str = ""


async def snapshot(client: httpx2.AsyncClient, targets: Sequence[Target]) -> Snapshot:
    """Within the time that one of them may take to answer, times the rounds in which so many are asked."""
    pages: dict[str, Page | None] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)
    async with anyio.create_task_group() as asking:
        for target in targets:
            asking.start_soon(_ask, client, target, limiter, pages)
    return Snapshot(monotonic(), [Seen(t.name, t.pipeline, pages[t.url]) for t in targets])


def open_scraper() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False)


async def _ask(
    client: httpx2.AsyncClient, target: Target, limiter: anyio.CapacityLimiter, pages: dict[str, Page | None]
) -> None:
    async with limiter:
        pages[target.url] = await _page(client, target.url)


async def _page(client: httpx2.AsyncClient, url: str) -> Page | None:
    try:
        reply = await client.get(url)
        return parse_page(reply.text) if reply.is_success else None
    except (httpx2.TransportError, ValueError):  # it is not there, or it is somebody else
        return None
