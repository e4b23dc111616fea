"""Watches a mesh come up, from outside, as any operator would: GET /readyz of the gateway."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from omni_cli.top.exposition import parse_page
from omni_common.telemetry.names import SERVING

# /readyz is an external HTTP endpoint without a way to wait, so it is asked again and again; 5 times a second is
# quicker than anyone reads and costs nothing.
_INTERVAL = 0.2
_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage replica is."""

    replica: str
    phase: str
    loaded: int = 0
    total: int = 0

    def __str__(self) -> str:
        match self.phase:
            case "loading" if self.total:
                what = f"loading {self.loaded} of {self.total} tensors"
            case phase:
                what = phase.replace("_", " ")
        return f"  {self.replica:28} {what}"


def parse_progress(body: Any) -> Iterator[Progress]:
    """Every replica in the body of /readyz; none when it is not a body of ours."""
    for pipeline in body.get("pipelines", ()):
        for stage in pipeline["stages"]:
            for r in stage["replicas"]:
                yield Progress(r["replica"], r["phase"], r["tensors_loaded"], r["tensors_total"])


def all_ready(body: Any, pipelines: Iterable[str]) -> bool:
    """Whether the body of /readyz says so of each of these; the gateway calls itself ready as soon as one is."""
    return body.get("status") == "ready" and set(pipelines) <= {
        pipeline["name"] for pipeline in body.get("pipelines", ()) if pipeline["ready"]
    }


def changes(seen: dict[str, Progress], now: Iterable[Progress]) -> list[Progress]:
    """What is new since the last look. Counts of loaded tensors are news only in quarters: a line each is noise."""
    news = []
    for progress in now:
        before = seen.get(progress.replica)
        if before is None or before.phase != progress.phase or _quarter(before) != _quarter(progress):
            seen[progress.replica] = progress
            news.append(progress)
    return news


class Watch:
    """Tells of every change on the way to a mesh that is ready with all of its pipelines.

    `own`: host:port of the metrics of the gateway that is waited for. Who answers at the URL is heard only once that
    one serves, and so has the URL's port: until then it could be another mesh. Empty: whoever answers is the one.
    """

    def __init__(
        self,
        url: str,
        pipelines: Iterable[str],
        replicas: Iterable[str],
        show: Callable[[Progress], None],
        *,
        own: str = "",
    ) -> None:
        self._url = url
        self._own = own
        self._pipelines = frozenset(pipelines)
        self._show = show
        self._seen: dict[str, Progress] = {}
        self._tell([Progress(replica, "starting") for replica in replicas])

    async def until_ready(self) -> None:
        """Returns when every pipeline is ready. Has no deadline: a large model loads for minutes, and a replica that
        cannot start ends the launch elsewhere."""
        async with httpx2.AsyncClient(
            base_url=self._url, timeout=_TIMEOUT, trust_env=False, verify=_trust_in_whoever_has_the_port()
        ) as client:
            while self._own and not await _serves(client, self._own):  # noqa: ASYNC110 -- it is another process's
                await anyio.sleep(_INTERVAL)
            while True:
                body = await _look(client)
                self._tell(parse_progress(body))
                if all_ready(body, self._pipelines):
                    return
                await anyio.sleep(_INTERVAL)

    def _tell(self, progresses: Iterable[Progress]) -> None:
        for progress in changes(self._seen, progresses):
            self._show(progress)


async def _serves(client: httpx2.AsyncClient, metrics: str) -> bool:
    try:
        page = parse_page((await client.get(f"http://{metrics}/metrics")).text)
    except (httpx2.TransportError, ValueError):  # it does not listen yet, or is another program that is about to leave
        return False
    return page.total(SERVING) == 1


def _trust_in_whoever_has_the_port() -> ssl.SSLContext:
    """The user's certificate may be for another name than the address, and from a CA that this machine does not know;
    nothing is told to the other end that is a secret, and what it answers is only shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _look(client: httpx2.AsyncClient) -> Any:
    try:
        reply = await client.get("/readyz")
    except httpx2.TransportError:  # the gateway does not listen yet
        return {}
    return reply.json()


def _quarter(progress: Progress) -> int:
    return 4 * progress.loaded // progress.total if progress.total else 0
