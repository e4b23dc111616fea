"""The mesh of a cluster with IPv6 only: real processes that listen on `::`, as the chart has them, and know each other
by an IPv6 address. A file goes from pod to pod by their relays."""

from __future__ import annotations

import base64
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import httpx2
import pytest
from tests.relay_process import RelayProcess

from omni_cli.top.exposition import parse_page
from omni_common.telemetry import names
from omni_stage.models import load_pipeline_config

pytestmark = pytest.mark.slow

HOST = "::1"
PATIENCE = 60.0
PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
_INTERVAL = 0.1
RELAY = {"ARENA_SIZE": "32MiB", "EXTENT_SIZE": "1MiB"}
# Not even a small tensor rides in a frame.
STAGE = {"FAMILY": "echo", "INLINE_LIMIT": "0"}


@contextmanager
def service(name: str, **settings: str) -> Iterator[RelayProcess]:
    given = {"METRICS_HOST": "::", "METRICS_PORT": "0", "HEALTH_PORT": "0", **settings}
    environment = {**os.environ, **{f"OMNI_{name.upper()}_{key}": value for key, value in given.items()}}
    with Popen([sys.executable, "-m", f"omni_{name}"], env=environment, stderr=PIPE, text=True) as process:
        watched = RelayProcess(process)
        try:
            yield watched
        finally:
            process.kill()
            watched.ended()


def free_port() -> int:
    with socket.create_server((HOST, 0), family=socket.AF_INET6) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def mesh(folder: Path) -> Iterator[tuple[str, RelayProcess]]:
    """The gateway's URL once all are ready, and the process of all stages but one, which is in another pod."""
    pipeline = load_pipeline_config("echo")
    (folder / "echo.json").write_text(pipeline.model_dump_json())
    port, front = free_port(), free_port()
    others = ",".join(stage.name for stage in pipeline.stages if stage.name != "count")
    with ExitStack() as running:
        start = running.enter_context
        start(service("coordinator", BIND=f"[::]:{port}", PIPELINES=str(folder / "echo.json")))
        processes: list[RelayProcess] = []
        for pod, stages in (("a", others), ("b", "count")):
            (folder / pod).mkdir()
            place: Mapping[str, str] = {"BIND": "[::]:0", "ADVERTISE": HOST}
            token = folder / "token"
            token.write_text("a token that nobody guesses, long enough")
            start(service("relay", **place, **RELAY, FOLDER=str(folder / pod), TOKEN_FILE=str(token)))
            known = {"STAGE": stages, "REPLICA": f"{pod}-0", "POD": pod, "COORDINATORS": f"[{HOST}]:{port}"}
            processes.append(start(service("stage", **place, **STAGE, **known, ARENA=str(folder / pod))))
        entry = start(service("gateway", BIND=f"[::]:{front}", COORDINATORS=f"[{HOST}]:{port}"))
        for process in (*processes, entry):
            process.logged("serving", within=PATIENCE)
        url = f"http://[{HOST}]:{front}"
        until_ready(url)
        yield url, processes[0]


def until_ready(url: str) -> None:
    """An endpoint that has no way to wait is asked again and again."""
    deadline = time.monotonic() + PATIENCE
    while httpx2.get(f"{url}/readyz", trust_env=False).status_code != 200:
        assert time.monotonic() < deadline, "the mesh does not become ready"
        time.sleep(_INTERVAL)


def test_a_mesh_on_ipv6_answers_and_its_relays_reach_each_other(tmp_path: Path) -> None:
    file = "data:image/jpeg;base64," + base64.b64encode(PHOTO.read_bytes()).decode()
    content = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": file}}]
    with mesh(tmp_path) as (url, sender):
        body = {"model": "echo", "messages": [{"role": "user", "content": content}]}
        answer = httpx2.post(f"{url}/v1/chat/completions", json=body, trust_env=False, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        assert str(PHOTO.stat().st_size) in answer.json()["choices"][0]["message"]["content"]
        port = sender.logged("metrics are served")["port"]
        page = parse_page(httpx2.get(f"http://[{HOST}]:{port}/metrics", trust_env=False).text)
    ways = {labels["transport"] for labels, _ in page.of(names.EDGE_TRANSPORT) if labels["edge"] == "split>count"}
    assert ways == {"tcp"}
