"""The gateway as the process that it is in a mesh, in front of a scripted coordinator."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
from anyio.streams.buffered import BufferedByteReceiveStream
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from omni_common.request import Task
from omni_common.testing.coordinator import FakeCoordinator, fake_coordinator
from omni_common.testing.mail import PATIENCE
from omni_common.testing.scripts import pipeline_status

MODEL = "qwen3-omni"
# Files are looked at once a second, and /metrics is an external endpoint without a way to wait: both are asked again.
_INTERVAL = 0.05


def write_keys(path: Path, keys: Mapping[str, Mapping[str, object]]) -> None:
    """The file of keys, from each key and what it may do under `limits`; `name` is what logs say."""
    known = {
        str(entry["name"]): {"sha256": hashlib.sha256(key.encode()).hexdigest()} | dict(entry.get("limits", {}))  # type: ignore[call-overload]
        for key, entry in keys.items()
    }
    put(path, json.dumps({"keys": known}))


def put(path: Path, text: str) -> None:
    """At once: nobody sees half of it."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass
class GatewayProcess:
    """`log` has every line that the process wrote so far."""

    process: anyio.abc.Process
    coordinator: FakeCoordinator
    port: int
    metrics_port: int
    log: list[dict[str, Any]] = field(default_factory=list)

    async def until_logged(self, message: str, times: int = 1) -> dict[str, Any]:
        """The line with this message, which was or will be written so many times."""
        with anyio.fail_after(PATIENCE):
            while True:
                if len(found := [line for line in self.log if line["msg"] == message]) >= times:
                    return found[-1]
                await anyio.sleep(_INTERVAL)

    async def metric(self, name: str, **labels: str) -> float:
        """0 where it was never counted."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            page = (await http.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def until_metric(self, least: float, name: str, **labels: str) -> None:
        with anyio.fail_after(PATIENCE):
            while await self.metric(name, **labels) < least:  # noqa: ASYNC110  # it is another process's
                await anyio.sleep(_INTERVAL)

    def connect(self, ca: Path | None = None, key: str = "") -> httpx2.AsyncClient:
        """With the CA over HTTPS, else over HTTP."""
        return httpx2.AsyncClient(
            base_url=f"{'https' if ca else 'http'}://localhost:{self.port}",
            verify=ssl.create_default_context(cafile=ca) if ca else False,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=PATIENCE,
            trust_env=False,
        )

    @asynccontextmanager
    async def openai(
        self, ca: Path | None = None, key: str = "none", max_retries: int = 0
    ) -> AsyncIterator[AsyncOpenAI]:
        """The official client, which is strict about what comes back."""
        async with AsyncOpenAI(
            base_url=f"{'https' if ca else 'http'}://localhost:{self.port}/v1",
            api_key=key,
            max_retries=max_retries,
            _strict_response_validation=True,
            http_client=self.connect(ca),
        ) as client:
            yield client

    async def read_log(self, stream: BufferedByteReceiveStream) -> None:
        """To its end. A line that is no JSON is the interpreter's own and is kept as its message."""
        with_rest = b""
        async for piece in stream:
            *lines, with_rest = (with_rest + piece).split(b"\n")
            for line in lines:
                self.log.append(json.loads(line) if line.startswith(b"{") else {"msg": line.decode()})


@asynccontextmanager
async def gateway_process(**settings: object) -> AsyncIterator[GatewayProcess]:
    """It serves MODEL when this begins. Settings by their names in the environment, without the prefix."""
    async with fake_coordinator(pipeline_status(MODEL, tasks=(Task.CHAT, Task.SPEECH))) as coordinator:
        env = {"BIND": "127.0.0.1:0", "METRICS_PORT": "0", "COORDINATORS": coordinator.address} | settings
        async with await anyio.open_process(
            [sys.executable, "-m", "omni_gateway"],
            env={f"OMNI_GATEWAY_{name}": str(value) for name, value in env.items()},
            stdout=subprocess.DEVNULL,
        ) as process:
            assert process.stderr is not None
            running = GatewayProcess(process, coordinator, 0, 0)
            async with anyio.create_task_group() as tasks:
                try:
                    tasks.start_soon(running.read_log, BufferedByteReceiveStream(process.stderr))
                    running.port = int((await running.until_logged("gateway listens"))["port"])
                    running.metrics_port = int((await running.until_logged("metrics are served"))["port"])
                    await _until_ready(running, https="HTTPS_CERT" in settings)
                    yield running
                finally:
                    if process.returncode is None:
                        process.kill()
                    tasks.cancel_scope.cancel()


async def last_words(**settings: object) -> tuple[int, str]:
    """The exit status of a gateway that cannot start, and the one line that it says why in."""
    env = {"BIND": "127.0.0.1:0", "COORDINATORS": "127.0.0.1:1"} | settings
    with anyio.fail_after(PATIENCE):
        ended = await anyio.run_process(
            [sys.executable, "-m", "omni_gateway"],
            env={f"OMNI_GATEWAY_{name}": str(value) for name, value in env.items()},
            check=False,
        )
    (line,) = ended.stderr.decode().splitlines()
    return ended.returncode, str(json.loads(line)["msg"])


async def _until_ready(running: GatewayProcess, *, https: bool) -> None:
    """As a kubelet looks: it believes every certificate."""
    url = f"{'https' if https else 'http'}://localhost:{running.port}/readyz"
    async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
        with anyio.fail_after(PATIENCE):
            while (await http.get(url)).status_code != 200:  # noqa: ASYNC110  # it is another process's
                await anyio.sleep(_INTERVAL)
