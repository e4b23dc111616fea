"""`omni doctor` as a real process with the real Kubernetes client, at API servers that show a sick release."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from tests.lab import kube_objects
from tests.lab.kube_api import Picture, kube_api, write_kubeconfig
from tests.lab.kube_objects import (
    ago,
    container,
    deployment,
    event,
    foreign_pod,
    node,
    pod,
    replica_set,
    running,
    terminated,
    tls_secret,
    waiting,
)
from tests.unit.relay.wire.authority import Authority

pytestmark = pytest.mark.anyio

METRICS = [{"name": "metrics", "containerPort": 9000}]
GATEWAY_PORTS = [{"name": "https", "containerPort": 8000}, *METRICS]
TLS = [{"name": "tls", "secret": {"secretName": "omni-gateway-tls"}}]
BUILD = 'omni_build_info{service="gateway",version="0.1.0"} 1\nomni_serving 1\n'
GPU = {"nvidia.com/gpu": "1"}


@pytest.fixture(autouse=True)
def _objects_as_old_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor goes by the clock, and these tests may run long after their modules were imported."""
    monkeypatch.setattr(kube_objects, "NOW", datetime.now(UTC))


def healthy() -> Picture:
    """A gateway, a coordinator and a thinker, as they should be."""
    picture = Picture()
    picture.add(
        "pods",
        pod("omni-gateway-1", "gateway", containers=[container("gateway", ports=GATEWAY_PORTS)], volumes=TLS),
        pod("omni-coordinator-1", "coordinator", containers=[container("coordinator", ports=METRICS)]),
        pod("omni-qwen3-omni-thinker-1", "stage", "thinker"),
    )
    picture.add(
        "deployments",
        deployment("omni-gateway", "gateway"),
        deployment("omni-coordinator", "coordinator"),
        deployment("omni-qwen3-omni-thinker", "stage", "thinker"),
    )
    picture.add("nodes", node("node-a"), node("node-b"))
    picture.add("secrets", tls_secret("omni-gateway-tls", days=60))
    picture.proxies = {"omni-gateway-1:9000": (200, BUILD), "omni-coordinator-1:9000": (200, BUILD)}
    return picture


def thinker(picture: Picture, **changes: object) -> None:
    """In place of the one that is well."""
    pods = picture.lists["pods"]
    pods[-1] = pod("omni-qwen3-omni-thinker-1", "stage", "thinker", **changes)  # type: ignore[arg-type]


async def doctor(kubeconfig: Path, *options: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "omni_cli", "doctor", "--kubeconfig", str(kubeconfig), *options]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONUTF8": "1"}
    with anyio.fail_after(40):
        done = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.PIPE)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def said_of(folder: Path, picture: Picture, *, code: int = 1) -> str:
    with kube_api(folder, picture) as kubeconfig:
        found, out, err = await doctor(kubeconfig)
    assert (found, err) == (code, ""), out
    return out


async def test_of_a_healthy_release_it_says_that_nothing_is_wrong(tmp_path: Path) -> None:
    out = await said_of(tmp_path, healthy(), code=0)
    head, *rest = out.splitlines()
    assert head.startswith("Release omni in namespace speech of http://127.0.0.1:")
    assert head.endswith("3 of 3 pods ready, 3 deployments, 2 nodes; 2 of 2 processes reached for their metrics.")
    assert rest == ["Nothing is wrong."]


async def test_a_stage_that_waits_for_a_gpu_is_told_who_has_them(tmp_path: Path) -> None:
    picture = healthy()
    picture.lists["nodes"] = [node("node-a"), node("gpu-1", gpus=1), node("gpu-2", gpus=2)]
    picture.add("foreign pods", foreign_pod("train-0", "gpu-2", gpu="2"), foreign_pod("train-1", "gpu-1", gpu="1"))
    short = (
        "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption."
    )
    thinker(picture, containers=[container("thinker", limits=GPU)], unscheduled=short)
    out = await said_of(tmp_path, picture)
    assert (
        "✗ thinker waits for 1 × nvidia.com/gpu; 2 nodes have it, all in use by others/train-0 (2), others/train-1. "
        "[pod omni-qwen3-omni-thinker-1]"
    ) in out
    assert out.endswith("1 thing is wrong.\n")


async def test_the_last_words_of_a_process_that_crashes_are_told(tmp_path: Path) -> None:
    picture = healthy()
    log = [
        {"level": "INFO", "msg": "metrics are served", "port": 9100},
        {"level": "ERROR", "msg": "OMNI_STAGE_DTYPE is refused: it is float8."},
        {"level": "INFO", "msg": "ended"},
    ]
    picture.logs["omni-qwen3-omni-thinker-1", "thinker", True] = "\n".join(map(json.dumps, log))
    thinker(picture, ready=False, statuses=[waiting("thinker", "CrashLoopBackOff", restarts=4, last=terminated(1))])
    assert (
        "✗ thinker fails: its container thinker ended with code 1. It was started again 4 times. "
        'It said last: "OMNI_STAGE_DTYPE is refused: it is float8." [pod'
    ) in await said_of(tmp_path, picture)


async def test_why_a_stage_cannot_load_is_told_from_the_kubelet_s_event(tmp_path: Path) -> None:
    picture = healthy()
    thinker(picture, ready=False, statuses=[running("thinker", ready=False)])
    said = (
        "Startup probe failed: error: health rpc probe failed: rpc error: code = FailedPrecondition desc = "
        "Stage 'thinker' cannot start. SafetensorError: Error while deserializing header: invalid header length."
    )
    picture.lists["events"] = [
        event("Pod", "omni-qwen3-omni-thinker-1", "Unhealthy", said, container="thinker"),
        event("Pod", "omni-qwen3-omni-thinker-1", "Unhealthy", "NOT_SERVING", container="thinker", at=ago(minutes=5)),
    ]
    assert (
        "✗ thinker is not ready since 60 minutes: Stage 'thinker' cannot start. SafetensorError: Error while "
        "deserializing header: invalid header length. [pod"
    ) in await said_of(tmp_path, picture)


async def test_weights_that_do_not_come_are_told_with_the_step_s_own_sentence(tmp_path: Path) -> None:
    picture = healthy()
    sentence = "The hub does not know Qwen/Qwen3-Omni-30B-A3B-Nope."
    thinker(
        picture,
        ready=False,
        phase="Pending",
        init=[container("weights")],
        init_statuses=[waiting("weights", "CrashLoopBackOff", restarts=1, last=terminated(1, message=sentence))],
        statuses=[waiting("thinker", "PodInitializing")],
    )
    assert (
        "✗ thinker fails: the step that gets its weights ended with code 1. It was started again once. "
        f'It said last: "{sentence}"'
    ) in await said_of(tmp_path, picture)


async def test_what_a_stage_still_loads_is_asked_of_the_gateway(tmp_path: Path) -> None:
    picture = healthy()
    thinker(picture, ready=False, statuses=[running("thinker", ready=False)])
    replica = {
        "replica": "omni-qwen3-omni-thinker-1-thinker",
        "phase": "loading",
        "tensors_loaded": 40,
        "tensors_total": 90,
    }
    body = {"pipelines": [{"stages": [{"stage": "thinker", "replicas": [replica]}]}]}
    picture.proxies["omni-gateway-1:8000"] = (503, json.dumps(body))
    picture.logs["omni-qwen3-omni-thinker-1", "thinker", False] = '{"level": "INFO", "msg": "loading"}\n'
    assert (
        "✗ thinker is not ready since 60 minutes: thinker is loading, 40 of 90 tensors are there. "
        'thinker said last: "loading"'
    ) in await said_of(tmp_path, picture)


async def test_several_troubles_are_all_told_the_worst_first(tmp_path: Path) -> None:
    picture = healthy()
    picture.lists["nodes"][0] = node("node-a", MemoryPressure="True")
    picture.lists["secrets"] = [tls_secret("omni-gateway-tls", days=-3)]
    picture.lists["deployments"][2]["spec"]["replicas"] = 2
    quota = 'pods "omni-qwen3-omni-thinker-" is forbidden: exceeded quota: team, used: pods=9, limited: pods=9'
    picture.add(
        "replicasets",
        replica_set("omni-qwen3-omni-thinker-aaa", "omni-qwen3-omni-thinker", wanted=2, there=1, failure=quota),
    )
    thinker(
        picture,
        ready=False,
        containers=[container("thinker", limits={"memory": "2Gi"}, volumeMounts=[{"name": "arena"}])],
        volumes=[{"name": "arena", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
        statuses=[waiting("thinker", "CrashLoopBackOff", restarts=2, last=terminated(137, "OOMKilled"))],
    )
    lines = [line for line in (await said_of(tmp_path, picture)).splitlines() if line[0] in "✗!"]
    assert [line[0] for line in lines] == ["✗", "✗", "✗", "!"]
    assert lines[0].startswith("✗ thinker gets no pods: the namespace's quota is used up (pods ")
    assert lines[1].startswith(
        "✗ thinker's container thinker was killed for its memory; its limit is 2.0 GiB of memory, "
        "of which the arena, a volume in memory, may take 1.0 GiB of memory."
    )
    assert lines[2].startswith("✗ The certificate in omni-gateway-tls expired 3 days ago")
    assert lines[3].startswith("! Node node-a, which runs coordinator, gateway, thinker, has MemoryPressure")


async def test_what_may_not_be_seen_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    picture = healthy()
    picture.forbidden = {"nodes", "secrets", "all pods", "pods/proxy", "pods/log", "events"}
    thinker(
        picture,
        containers=[container("thinker", limits=GPU)],
        unscheduled="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    )
    out = await said_of(tmp_path, picture)
    assert "✗ thinker waits for 1 × nvidia.com/gpu; which nodes have it may not be seen." in out
    assert "! The nodes may not be seen, so that nothing is said of them: nodes is forbidden:" in out
    assert "! The Secret omni-gateway-tls may not be read" in out
    assert "! No process is reached for its metrics through the API server" in out


async def test_a_namespace_a_release_and_a_context_may_be_named(tmp_path: Path) -> None:
    with kube_api(tmp_path, healthy()) as kubeconfig:
        code, out, err = await doctor(kubeconfig, "--release", "demo")
        assert (code, out) == (2, "")
        assert err.startswith("There is no release demo in the namespace speech of http://127.0.0.1:")
        code, _, err = await doctor(kubeconfig, "--context", "other")
        assert (code, "namespace elsewhere" in err) == (2, True)
        assert (await doctor(kubeconfig, "--context", "other", "-n", "speech"))[0] == 0
        code, _, err = await doctor(kubeconfig, "--context", "nowhere")
        assert (code, err.startswith("No cluster to ask: ")) == (2, True)


async def test_where_no_cluster_is_reached_it_ends_with_2_and_a_sentence(tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "gone", "http://127.0.0.1:1", "speech")
    code, out, err = await doctor(tmp_path / "gone")
    assert (code, out) == (2, "")
    assert err == "The API server at http://127.0.0.1:1 does not answer: Connection refused.\n"
    code, _, err = await doctor(tmp_path / "missing")
    assert (code, err.startswith("No cluster to ask: ")) == (2, True)
    with kube_api(tmp_path, healthy()) as kubeconfig:
        stranger = tmp_path / "stranger"
        stranger.write_text(kubeconfig.read_text().replace("not-a-secret", "another"))
        code, _, err = await doctor(stranger)
    assert code == 2
    assert "does not know these credentials: Unauthorized." in err


@contextmanager
def serving(page: str) -> Iterator[str]:
    """A server of one page; gives host:port."""

    class Plain(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silence() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
async def test_a_process_or_a_server_that_never_answers_does_not_hang_it(tmp_path: Path) -> None:
    picture = healthy()
    with silence() as port:
        picture.proxies["omni-gateway-1:9000"] = f"127.0.0.1:{port}"
        out = await said_of(tmp_path, picture, code=0)
        assert "! omni-gateway-1/gateway is ready and does not answer for its metrics." in out
        # So it is where a NetworkPolicy drops what comes from outside; a port-forward ends inside the pod.
        names = ("omni-gateway-1", "omni-coordinator-1")
        picture.proxies = {f"{name}:{number}": f"127.0.0.1:{port}" for name in names for number in (8000, 9000)}
        with serving(BUILD) as address:
            picture.forwards = {f"{name}:9000": address for name in names}
            out = await said_of(tmp_path, picture, code=0)
        assert "2 of 2 processes reached for their metrics.\nNothing is wrong.\n" in out
        write_kubeconfig(tmp_path / "mute", f"http://127.0.0.1:{port}", "speech")
        code, out, err = await doctor(tmp_path / "mute")
    assert (code, out) == (2, "")
    assert err.startswith(f"The API server at http://127.0.0.1:{port} does not answer: ")


async def test_the_server_s_certificate_is_checked_and_port_forwards_are_tls_too(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ca").issue("localhost")
    foreign = Authority(tmp_path, "foreign")
    picture = healthy()
    picture.proxies = {}
    with serving(BUILD) as address, kube_api(tmp_path, picture, tls=files) as kubeconfig:
        picture.forwards = {f"{name}:9000": address for name in ("omni-gateway-1", "omni-coordinator-1")}
        code, out, err = await doctor(kubeconfig)
        assert (code, err) == (0, ""), out
        assert "2 of 2 processes reached" in out
        stranger = tmp_path / "stranger"
        stranger.write_text(kubeconfig.read_text().replace(str(files.ca), str(foreign.ca)))
        code, out, err = await doctor(stranger)
    assert (code, out) == (2, "")
    assert "certificate" in err


async def test_what_is_no_api_server_is_told(tmp_path: Path) -> None:
    with serving("It works!") as address:
        write_kubeconfig(tmp_path / "web", f"http://{address}", "speech")
        code, out, err = await doctor(tmp_path / "web")
    assert (code, out) == (2, "")
    assert err.endswith(" is no Kubernetes API server.\n")


async def test_an_image_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    picture = healthy()
    thinker(
        picture,
        ready=False,
        phase="Pending",
        age=ago(minutes=5),
        statuses=[waiting("thinker", "ImagePullBackOff", "Back-off pulling image")],
    )
    picture.add(
        "events",
        event("Pod", "omni-qwen3-omni-thinker-1", "Failed", 'Failed to pull image "omni-thinker:0.1.0": not found'),
    )
    out = await said_of(tmp_path, picture)
    assert (
        '✗ thinker cannot get the image omni-thinker:0.1.0: Failed to pull image "omni-thinker:0.1.0": not found.'
        in out
    )
    assert "→ See the image's name and tag" in out
