"""`omni top` and `omni plan` on a cluster: the pods' pages by the API server's proxy, which here leads to real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
import yaml
from tests.integration.up_process import STAGES, say, up
from tests.lab.kube_api import Picture, kube_api
from tests.lab.kube_objects import container, pod

from omni_cli.launcher.state import RunState, Watched, newest_state

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def as_pods(state: RunState) -> Picture:
    """Each process of the run as a pod of its own."""
    picture = Picture()
    for process in state.processes:
        ports = [{"name": "relay-metrics" if "relay" in process.name else "metrics-0", "containerPort": 9100}]
        labels = {"app.kubernetes.io/instance": "omni", **_of_stage(process)}
        made = pod(process.name, containers=[container("main", ports=ports)], meta={"labels": labels})
        picture.add("pods", made)
        picture.proxies[f"{process.name}:9100"] = process.metrics
    return picture


def _of_stage(process: Watched) -> dict[str, str]:
    return {"omni.dev/pipeline": process.pipeline, "omni.dev/placement-group": "all"} if process.pipeline else {}


def behind_policies(picture: Picture) -> Picture:
    """Pods that the API server's proxy does not reach, and its port-forward does."""
    picture.forwards = {pod: str(address) for pod, address in picture.proxies.items()}
    picture.proxies = {}
    return picture


def first_words(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line.split()}


async def omni(*arguments: str) -> tuple[int, str, str]:
    with anyio.fail_after(40):
        done = await anyio.run_process(
            [sys.executable, "-m", "omni_cli", *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONUTF8": "1"},
            check=False,
            stderr=subprocess.PIPE,
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_release_is_watched_and_planned_for(tmp_path: Path) -> None:
    async with up(tmp_path) as mesh:
        await mesh.ready()
        for number in range(3):
            assert "hello" in (await say(mesh, f"hello {number}")).lower()
        state = newest_state(tmp_path)
        assert state is not None
        with kube_api(tmp_path, as_pods(state)) as kubeconfig:
            where = ("-n", "speech", "--kubeconfig", str(kubeconfig))
            code, shown, said = await omni("top", "--once", "--interval", "0.2", *where)
            planned = await omni("plan", "--requests-per-second", "2", *where)
        with kube_api(tmp_path, behind_policies(as_pods(state))) as kubeconfig:
            forwarded = await omni("top", "--once", "--interval", "0.2", *where)
        assert await mesh.stop(signal.SIGTERM) == 0
    assert (code, said) == (0, "")
    assert (forwarded[0], forwarded[2]) == (0, "")
    assert first_words(forwarded[1]) == first_words(shown)
    words = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.split()}
    assert {f"echo-{stage}-0/main" for stage in STAGES} <= words.keys()
    assert words["echo"][:3] == ["1", "0", "0.0"]
    assert planned[0] == 0, planned[2]
    assert planned[1].startswith("echo: 2 requests/s, ")
    assert "from 3 measured requests." in planned[1]
    values = yaml.safe_load(planned[1].partition("# Values")[2].partition("\n")[2])
    assert values == {"pipelines": {"echo": {"placementGroups": {"all": {"replicas": 1}}}}}


async def test_a_release_that_does_not_answer_is_told_in_a_sentence(tmp_path: Path) -> None:
    picture = Picture()
    with kube_api(tmp_path, picture) as kubeconfig:
        where = ("--kubernetes", "--kubeconfig", str(kubeconfig))
        code, _, said = await omni("top", "--once", *where)
        assert code == 1
        assert said.startswith("There is no pod of a release omni in the namespace speech.")
        picture.add("pods", pod("omni-gateway-1", "gateway"))
        code, _, said = await omni("top", "--once", *where, "--release", "omni")
        assert (code, said.startswith("None of the 1 pods of omni answers for its metrics.")) == (1, True)
        code, _, said = await omni("top", "--once", "http://127.0.0.1:1", *where)
        assert (code, said) == (1, "Give addresses, or a release on a cluster, not both.\n")
        picture.forbidden = {"pods"}
        code, _, said = await omni("plan", "--requests-per-second", "1", *where)
        assert (code, said.startswith("pods is forbidden: User")) == (1, True)
