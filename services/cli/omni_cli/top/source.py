"""Where pages of metrics come from: the processes of a run, addresses that are given, or the pods of a release."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import httpx2

from omni_cli.cluster.access import Cluster, Where, open_cluster
from omni_cli.cluster.pages import Pages
from omni_cli.cluster.pods import metrics_ports, selector
from omni_cli.errors import CommandError
from omni_cli.launcher.folders import base_folder
from omni_cli.launcher.state import newest_state
from omni_cli.settings import CommandSettings
from omni_cli.top.change import Seen, Snapshot
from omni_cli.top.scrape import Target, open_scraper, snapshot
from omni_common.clock import monotonic


class Source(Protocol):
    """A mesh that can be looked at again and again."""

    async def look(self) -> Snapshot:
        """Raises CommandError when no process answers."""


@asynccontextmanager
async def open_source(urls: Sequence[str], where: Where | None) -> AsyncIterator[Source]:
    """`where`: the release; without it `urls`, and without these the newest run. Raises CommandError."""
    if where is not None:
        if urls:
            raise CommandError("Give addresses, or a release on a cluster, not both.")
        async with open_cluster(where) as cluster:
            yield _Release(cluster, where.release)
        return
    targets = [_target(url) for url in urls] or _of_newest_run()
    async with open_scraper() as client:
        yield _Local(client, targets)


class _Local:
    def __init__(self, client: httpx2.AsyncClient, targets: Sequence[Target]) -> None:
        self._client = client
        self._targets = targets

    async def look(self) -> Snapshot:
        seen = await snapshot(self._client, self._targets)
        if all(process.page is None for process in seen.processes):
            raise CommandError("No process answers: the mesh has ended, or the addresses are not those of its metrics.")
        return seen


class _Release:
    """Pods come and go, so that they are listed for each look."""

    def __init__(self, cluster: Cluster, release: str) -> None:
        self._cluster = cluster
        self._release = release
        self._pages = Pages(cluster)

    async def look(self) -> Snapshot:
        here = self._cluster.namespace
        pods = await self._cluster.objects(f"/api/v1/namespaces/{here}/pods", labelSelector=selector(self._release))
        ports = [port for pod in pods for port in metrics_ports(pod, here)]
        pages = await self._pages.of(ports)
        if not any(pages.values()):
            raise CommandError(_silence(self._release, here, len(pods)))
        return Snapshot(monotonic(), [Seen(p.name, p.pipeline, pages[p.name], p.group) for p in ports])


def _silence(release: str, namespace: str, pods: int) -> str:
    if not pods:
        return (
            f"There is no pod of a release {release} in the namespace {namespace}. Say which: -n NAMESPACE --release R."
        )
    return f"None of the {pods} pods of {release} answers for its metrics. `omni doctor` says what is wrong with them."


def _of_newest_run() -> list[Target]:
    state = newest_state(base_folder(CommandSettings().runtime_dir))
    if state is None:
        raise CommandError(
            "No mesh of yours runs on this machine. Start one with `omni up`, or say where its processes serve their "
            "metrics: omni top http://host:port/metrics ..."
        )
    return [Target(p.name, f"http://{p.metrics}/metrics", p.pipeline) for p in state.processes]


def _target(address: str) -> Target:
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise CommandError(f"{address} is no URL; one is http://127.0.0.1:9100/metrics.")
    return Target(url.netloc.decode(), str(url if url.path.strip("/") else url.copy_with(path="/metrics")))
