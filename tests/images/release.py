"""A release of the chart on a node of one machine, and whoever calls it over HTTPS."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from tests.chart.documents import Pod, Render
from tests.images.node import Node, Running, node_of

_HTTPS = 8000
_SECONDS = 120
_HEADER = 1024


@dataclass(frozen=True)
class Release:
    """`pods` by the names of their Deployments."""

    render: Render
    node: Node
    pods: dict[str, Running]

    def pod(self, name: str) -> Pod:
        (pod,) = (pod for pod in self.render.pods if pod.owner["metadata"]["name"] == name)
        return pod

    @contextmanager
    def client(self) -> Iterator[httpx2.Client]:
        """A caller who knows the chart's CA. It asks the pod, since no Service stands before it here."""
        authority = base64.b64decode(self.render.one("Secret", "omni-https")["data"]["ca.crt"]).decode()
        url = f"https://{self.pods['omni-gateway'].address}:{_HTTPS}"
        trust = ssl.create_default_context(cadata=authority)
        with httpx2.Client(base_url=url, verify=trust, timeout=_SECONDS, trust_env=False) as client:
            yield client

    def post(
        self, client: httpx2.Client, path: str, body: object, begun: Callable[[], object] = lambda: None
    ) -> tuple[int, bytes]:
        """The answer's status and body; `begun` is called when there is more of it than a header."""
        with client.stream("POST", path, json=body, extensions={"sni_hostname": "omni-gateway"}) as answer:
            pieces: list[bytes] = []
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if sum(map(len, pieces)) > _HEADER:
                    begun()
            return answer.status_code, b"".join(pieces)


@contextmanager
def released(render: Render, name: str, scratch: Path, images: Callable[[str], str]) -> Iterator[Release]:
    """All standing pods, once each: the coordinator first, which the others would wait for."""
    with node_of(render, name, scratch, images) as node:
        release = Release(render, node, {})
        order = ("coordinator", "gateway", "stage")
        for pod in sorted(render.standing, key=lambda pod: order.index(pod.component)):
            deployment = pod.owner["metadata"]["name"]
            release.pods[deployment] = node.start(pod, deployment)
        yield release
