"""A real Prometheus on loopback that scrapes the processes of a run of `omni up`."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import yaml
from tests.observability.programs import programs
from tests.observability.written import CHART

from omni_cli.launcher.network import free_port
from omni_cli.launcher.state import Watched

SCRAPES = "1s"
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Answers questions; `began` is when it started to look."""

    http: httpx2.AsyncClient
    began: float

    async def value(self, expression: str) -> float | None:
        """Of a single series, now; None where there is none."""
        found = await self._get("query", {"query": expression})
        return float(found[0]["value"][1]) if found else None

    async def samples(self, expression: str) -> Sequence[float]:
        """All that are numbers since it began to look, of every series."""
        span = {"start": str(self.began), "end": str(time.time()), "step": "2"}
        found = await self._get("query_range", {"query": expression, **span})
        each = [float(value) for series in found for _, value in series["values"]]
        return [value for value in each if math.isfinite(value)]

    async def exemplars(self, series: str) -> Sequence[Mapping[str, str]]:
        """The labels of those that it has of a series."""
        span = {"start": str(self.began), "end": str(time.time())}
        reply = (await self.http.get("/api/v1/query_exemplars", params={"query": series, **span})).json()
        assert reply["status"] == "success", reply
        return [one["labels"] for found in reply["data"] for one in found["exemplars"]]

    async def sees_what_is_now(self) -> None:
        """Waits until every target has been scraped twice from now on: a rate needs two samples."""
        for _ in range(2):
            now = time.time()
            await self.until(f"min(timestamp(up)) > bool {now}")

    async def until(self, expression: str) -> None:
        """Waits until it is 1."""
        with anyio.fail_after(_PATIENCE):
            while await self.value(expression) != 1:  # noqa: ASYNC110  # its API has no way to wait
                await anyio.sleep(0.2)

    async def broken_rules(self) -> Sequence[str]:
        """What it could not evaluate, and why."""
        groups = (await self.http.get("/api/v1/rules")).json()["data"]["groups"]
        each = [rule for group in groups for rule in group["rules"]]
        assert each
        return [f"{rule['name']}: {rule.get('lastError')}" for rule in each if rule["health"] != "ok"]

    async def ready(self) -> None:
        with anyio.fail_after(_PATIENCE):
            while not await self._is_ready():  # noqa: ASYNC110
                await anyio.sleep(0.1)

    async def _is_ready(self) -> bool:
        try:
            return (await self.http.get("/-/ready")).is_success
        except httpx2.TransportError:
            return False

    async def _get(self, what: str, asked: Mapping[str, str]) -> list[Any]:
        reply = (await self.http.get(f"/api/v1/{what}", params=asked)).json()
        assert reply["status"] == "success", reply
        found: list[Any] = reply["data"]["result"]
        return found


@asynccontextmanager
async def prometheus(folder: Path, processes: Sequence[Watched]) -> AsyncIterator[Prometheus]:
    """Its configuration and its data are in the folder."""
    config = _write_config(folder, processes)
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    command = [
        str(programs().prometheus),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        "--enable-feature=exemplar-storage",
    ]
    async with (
        await anyio.open_process(command, stdout=None, stderr=subprocess.STDOUT) as process,
        httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=20) as http,
    ):
        try:
            server = Prometheus(http, time.time())
            await server.ready()
            yield server
        finally:
            process.terminate()
            with anyio.move_on_after(10, shield=True):
                await process.wait()
            if process.returncode is None:
                process.kill()


def _write_config(folder: Path, processes: Sequence[Watched]) -> Path:
    """With the labels that the chart's PodMonitor gives."""
    folder.mkdir()
    path = folder / "prometheus.yml"
    config = {
        "global": {"scrape_interval": SCRAPES, "evaluation_interval": SCRAPES},
        "rule_files": [str(CHART / "rules" / "*.yaml")],
        "scrape_configs": [{"job_name": "omni", "static_configs": [_target(process) for process in processes]}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def _target(process: Watched) -> Mapping[str, Any]:
    labels = {"namespace": "here", "pod": process.name}
    return {
        "targets": [process.metrics],
        "labels": labels | ({"pipeline": process.pipeline} if process.pipeline else {}),
    }
