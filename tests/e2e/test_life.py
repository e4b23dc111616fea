"""A release's life on a real cluster: installed by one command, asked, tested, upgraded, rolled back, removed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.e2e.conftest import PIPELINE, Connect
from tests.e2e.kube import Failed, Release
from tests.e2e.pods import last_words, remove, start_python

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

# 24 kHz, 16 bits: a tenth of a second.
SHORTEST_SPEECH = 4800

KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
except OSError:
    print("refused")
else:
    print("open")
"""


def test_a_chat_with_audio_is_answered_over_https(connect: Connect) -> None:
    with connect() as client:
        answer = client.chat.completions.create(
            model=PIPELINE,
            messages=[{"role": "user", "content": "Say hello."}],
            modalities=["text", "audio"],
            audio={"voice": "ethan", "format": "pcm16"},
            max_tokens=24,
        )
    spoken = answer.choices[0].message.audio
    assert spoken is not None
    sound = base64.b64decode(spoken.data)
    assert len(sound) > SHORTEST_SPEECH
    assert set(sound) != {0}, "silence"


def test_the_models_are_listed(connect: Connect) -> None:
    with connect() as client:
        assert PIPELINE in [one.id for one in client.models.list()]


def test_helm_test_passes(release: Release) -> None:
    assert "Succeeded" in release.helm("test", release.name, "--timeout", "10m")


def test_nobody_outside_the_pipeline_reaches_a_stage(release: Release, cli_image: str) -> None:
    """Where the cluster's network enforces policies. An open port would be found at once."""
    (pod, *_) = release.items("pods", "app.kubernetes.io/component=stage")
    start_python(release, "stranger", image=cli_image, script=KNOCK, arguments=[pod["status"]["podIP"], "7100"])
    try:
        said = last_words(release, "stranger", 180)
    finally:
        remove(release, "stranger")
    assert said == "refused", "the network of this cluster enforces no NetworkPolicy, or the chart's lets strangers in"


def test_an_upgrade_and_a_rollback_keep_the_certificates(release: Release, connect: Connect, tmp_path: Path) -> None:
    before = release.certificate_authority(tmp_path).read_text()
    release.upgrade("--set=gateway.replicas=2")
    assert release.deployments()[f"{release.name}-gateway"] == 2
    assert release.certificate_authority(tmp_path).read_text() == before
    release.helm("rollback", release.name, "1", "--wait", "--timeout", "10m")
    assert release.deployments()[f"{release.name}-gateway"] == 1
    assert release.certificate_authority(tmp_path).read_text() == before
    with connect() as client:
        assert list(client.models.list())


def test_wrong_values_are_refused_and_change_nothing(release: Release) -> None:
    before = release.helm("history", release.name)
    with pytest.raises(Failed, match="gateway"):
        release.upgrade("--set=gateway.replicas=many")
    assert release.helm("history", release.name) == before


def test_uninstall_leaves_nothing(release: Release) -> None:
    """The last: the release is gone after it."""
    release.helm("uninstall", release.name, "--wait", "--timeout", "15m", seconds=960)
    kinds = "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,networkpolicies"
    kinds += ",poddisruptionbudgets,horizontalpodautoscalers,persistentvolumeclaims"
    assert [f"{one['kind']}/{one['metadata']['name']}" for one in release.items(kinds)] == []
