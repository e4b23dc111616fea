"""A whole gateway over real HTTP in front of a scripted coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import httpx2
from openai import AsyncOpenAI

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.lifecycle import Health, Lifecycle
from omni_common.testing.coordinator import FakeCoordinator, fake_coordinator
from omni_common.testing.scripts import pipeline_status
from omni_gateway.gateway import Gateway
from omni_gateway.settings import GatewaySettings

MODEL = "qwen3-omni"


@dataclass(frozen=True)
class Mesh:
    """Both ends, and the two kinds of clients."""

    gateway: Gateway
    coordinator: FakeCoordinator
    http: httpx2.AsyncClient
    openai: AsyncOpenAI

    @property
    def port(self) -> int:
        return self.gateway.port

    async def chat(self, **body: object) -> httpx2.Response:
        """A raw chat request, by default one of a single word."""
        whole: Mapping[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **body}
        return await self.http.post("/v1/chat/completions", json=whole)


@asynccontextmanager
async def mesh(*pipelines: pb.PipelineStatus, **settings: object) -> AsyncIterator[Mesh]:
    """The gateway has heard of every pipeline when this begins. Settings as in GatewaySettings."""
    known = pipelines or (pipeline_status(MODEL),)
    async with fake_coordinator(*known) as coordinator, running(coordinator.address, **settings) as gateway:
        await until(gateway, lambda: len(gateway.client.pipelines()) == len(known))
        base = f"http://127.0.0.1:{gateway.port}"
        async with (
            httpx2.AsyncClient(base_url=base, timeout=10, trust_env=False) as http,
            AsyncOpenAI(
                base_url=f"{base}/v1",
                api_key="none",
                max_retries=0,
                timeout=10,
                _strict_response_validation=True,
                http_client=httpx2.AsyncClient(trust_env=False),
            ) as openai,
        ):
            yield Mesh(gateway, coordinator, http, openai)


@asynccontextmanager
async def running(*coordinators: str, **settings: object) -> AsyncIterator[Gateway]:
    """A gateway that listens, without the process around it."""
    gateway = Gateway(
        GatewaySettings(bind="127.0.0.1:0", coordinators=",".join(coordinators) or "127.0.0.1:1", **settings)  # type: ignore[arg-type]
    )
    lifecycle = _Heard()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gateway.run, lifecycle)
        with anyio.fail_after(5):
            await lifecycle.heard.wait()
        yield gateway
        tasks.cancel_scope.cancel()


class _Heard(Lifecycle):
    """Can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = anyio.Event()

    def __call__(self, *health: Health) -> None:
        super().__call__(*health)
        self.heard.set()


async def until(gateway: Gateway, holds: Callable[[], bool]) -> None:
    """Waits until the client knows as much; it tells of every change."""
    changed = anyio.Event()

    def look() -> None:
        changed.set()

    gateway.client.on_change(look)
    with anyio.fail_after(5):
        while not holds():
            await changed.wait()
            changed = anyio.Event()
