"""What happens to a cluster that serves: rolling updates, pods that die, stages that grow and shrink, GPUs that are
not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from tests.e2e.conftest import PIPELINE
from tests.e2e.kube import CHART, Release, environment
from tests.e2e.load import AT_ONCE, load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

# Two of everything: a single pod that dies takes its requests with it, which is promised; two must not.
TWO = (
    "--set=gateway.replicas=2",
    "--set=coordinator.replicas=2",
    f"--set=pipelines.{PIPELINE}.placementGroups.thinker.replicas=2",
    f"--set=pipelines.{PIPELINE}.placementGroups.talker.replicas=2",
)


@pytest.fixture(scope="module")
def doubled(release: Release) -> Release:
    release.upgrade(*TWO)
    return release


@pytest.mark.parametrize("part", ["gateway", "coordinator", f"{PIPELINE}-thinker", f"{PIPELINE}-talker"])
def test_a_rolling_update_fails_no_request(part: str, doubled: Release, cli_image: str) -> None:
    deployment = f"deployment/{doubled.name}-{part}"
    with load(doubled, model=PIPELINE, image=cli_image) as told:
        doubled.kubectl("rollout", "restart", deployment)
        doubled.kubectl("rollout", "status", deployment, "--timeout=15m", seconds=960)
        _gone(doubled, f"{doubled.name}-{part}")
    assert told.sent > 0
    assert told.failures == 0, told.failed


@pytest.mark.parametrize("part", ["gateway", "coordinator", f"{PIPELINE}-thinker", f"{PIPELINE}-talker"])
def test_a_killed_pod_comes_back_and_others_go_on(part: str, doubled: Release, cli_image: str) -> None:
    (victim, *others) = doubled.pods_of(f"{doubled.name}-{part}")
    with load(doubled, model=PIPELINE, image=cli_image) as told:
        doubled.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        doubled.stands()
    assert set(others) <= set(doubled.pods_of(f"{doubled.name}-{part}"))
    # What the dead pod had in hand may end in an error; nothing that came later may.
    assert told.failures <= AT_ONCE, told.failed
    assert told.sent > told.failures


@pytest.mark.parametrize("replicas", [3, 1])
def test_a_stage_grows_and_shrinks_under_load(replicas: int, doubled: Release, cli_image: str) -> None:
    name = f"{doubled.name}-{PIPELINE}-talker"
    with load(doubled, model=PIPELINE, image=cli_image) as told:
        # Not by `kubectl scale`: the field would be its own from then on, and helm's next upgrade would be refused.
        doubled.upgrade(*TWO, f"--set=pipelines.{PIPELINE}.placementGroups.talker.replicas={replicas}")
        _gone(doubled, name)
    assert told.failures == 0, told.failed


def test_a_stage_that_waits_for_a_gpu_is_explained(doubled: Release) -> None:
    group = f"pipelines.{PIPELINE}.placementGroups.talker.gpu"
    gpus = [f"--set={group}.mode=devicePlugin", f"--set={group}.resourceName=example.com/no-such-gpu"]
    talker = f"{doubled.name}-{PIPELINE}-talker"
    before = doubled.pods_of(talker)
    doubled.helm("upgrade", doubled.name, CHART, *doubled.values, *TWO, *gpus)
    try:
        one_too_few = "--for=jsonpath={.status.unavailableReplicas}=1"
        doubled.kubectl("wait", f"deployment/{talker}", one_too_few, "--timeout=120s")
        (newcomer,) = set(doubled.pods_of(talker)) - set(before)
        doubled.kubectl("wait", f"pod/{newcomer}", "--for=condition=PodScheduled=False", "--timeout=120s")
        told = _doctor(doubled)
        assert told.returncode != 0
        assert "talker" in told.stdout
        assert "example.com/no-such-gpu" in told.stdout
    finally:
        doubled.helm("rollback", doubled.name, "--wait", "--timeout", "10m")
    assert _doctor(doubled).returncode == 0


def test_why_a_stage_cannot_load_is_an_event_and_the_others_stay(doubled: Release) -> None:
    thinker = f"{doubled.name}-{PIPELINE}-thinker"
    before = doubled.pods_of(thinker)
    cannot = f"--set=pipelines.{PIPELINE}.stages.thinker.tpSize=3"  # which divides none of the tiny model's numbers
    doubled.helm("upgrade", doubled.name, CHART, *doubled.values, *TWO, cannot)
    try:
        assert "Stage 'thinker' cannot start. Its tp_size is 3" in _unhealthy(doubled)
        told = _doctor(doubled)
        assert told.returncode != 0
        assert "Stage 'thinker' cannot start." in told.stdout
        assert set(before) & set(doubled.pods_of(thinker)), "a pod that serves went before its successor did"
    finally:
        doubled.helm("rollback", doubled.name, "--wait", "--timeout", "10m")
    assert _doctor(doubled).returncode == 0


def _unhealthy(release: Release) -> str:
    """The first event of the kubelet's that says what a process told its probe. Events come when they come: this asks
    again and again."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = json.loads(
            release.kubectl("get", "events", "--field-selector", "reason=Unhealthy", "--output", "json")
        )["items"]
        if told := [str(one["message"]) for one in found if "FailedPrecondition" in one["message"]]:
            return told[0]
        time.sleep(5)
    raise AssertionError("no event says why a stage cannot load")


def _doctor(release: Release) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omni_cli", "doctor", "--namespace", release.namespace, "--release", release.name]
    command += ["--kubeconfig", environment("KUBECONFIG")]
    wide = {**os.environ, "COLUMNS": "400"}  # a line of its own for each sentence
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=wide, check=False)


def _gone(release: Release, deployment: str) -> None:
    """Returns when the pods that were replaced have ended too, not only when new ones are ready."""
    pods = release.pods_of(deployment)
    ending = [one["metadata"]["name"] for one in release.items("pods") if one["metadata"].get("deletionTimestamp")]
    for name in set(pods) & set(ending):
        release.kubectl("wait", f"pod/{name}", "--for=delete", "--timeout=15m", seconds=960)
