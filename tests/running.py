"""A whole mesh of processes as the tests watch it: its client, what its launcher says, what its processes hold."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import httpx2
import openai

from omni_cli.launcher.mesh import Mesh
from omni_common.arena.holds import SETTLE

_LIVE = re.compile(r"^(omni_(?:stage_)?live_requests|omni_arena_in_use_bytes|omni_http_in_flight)({.*})? (\S+)$", re.M)
# /metrics is an external HTTP endpoint without a way to wait, so it is asked again and again.
_INTERVAL = 0.05


@asynccontextmanager
async def strict_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=50, _strict_response_validation=True
    ) as client:
        yield client


def _scraper() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(trust_env=False, timeout=5, verify=False)  # plain HTTP on loopback


async def failure_of(ask: Callable[[], Awaitable[object]]) -> Exception | None:
    """How it failed, if it did. In a task `pytest.raises` would end the loop that all tests share."""
    try:
        await ask()
    except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
        return error
    return None


@dataclass(frozen=True, slots=True)
class Running:
    """`said` is what the launcher tells its user."""

    mesh: Mesh
    client: openai.AsyncOpenAI
    said: list[str]

    async def metrics(self, process: str) -> str:
        """The process's page for Prometheus."""
        async with _scraper() as http:
            return await self._page(http, process)

    async def until(
        self, holds: Callable[[Mapping[str, float]], bool], *, within: float, process: str | None = None
    ) -> None:
        """Until what every process, or this one, says that it holds satisfies `holds`."""
        last: Mapping[str, float] = {}
        with anyio.move_on_after(within):
            async with _scraper() as http:
                while True:
                    last = await self._gauges(http, [process] if process else list(self.mesh.supervisor.running()))
                    if holds(last):
                        return
                    await anyio.sleep(_INTERVAL)
        raise AssertionError(f"after {within:g} s: { {k: v for k, v in last.items() if v} }")

    async def _gauges(self, http: httpx2.AsyncClient, processes: Sequence[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in processes:
            page = await self._page(http, name)
            found |= {f"{name} {gauge}{labels}": float(value) for gauge, labels, value in _LIVE.findall(page)}
        return found

    async def _page(self, http: httpx2.AsyncClient, process: str) -> str:
        (spec,) = (spec for spec in self.mesh.plan.processes if spec.name == process)
        return (await http.get(f"http://{spec.metrics}/metrics")).text

    async def until_idle(self) -> None:
        """Nothing of any request is left, in any process; what was wiped in the arenas has come back."""
        processes = len(self.mesh.plan.processes)
        await self.until(lambda gauges: len(gauges) >= processes and not any(gauges.values()), within=15 + SETTLE)

    def process_of(self, pipeline: str, stage: str) -> str:
        """The process that runs the stage's first replica."""
        (config,) = (made.stage(stage) for made in self.mesh.pipelines if made.name == pipeline)
        return f"{pipeline}-{config.process_name}-0"

    async def until_live(self, pipeline: str, stage: str, requests: int) -> None:
        """Until the stage's first replica has so many."""
        process = self.process_of(pipeline, stage)
        gauge = f'{process} omni_stage_live_requests{{stage="{stage}"}}'
        await self.until(lambda gauges: gauges.get(gauge) == requests, within=10, process=process)
