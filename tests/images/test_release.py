"""The images as the chart starts them: pods by podman, with the chart's own environment, users, limits and volumes."""

from __future__ import annotations

import io
import threading
import wave
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.images.node import Running
from tests.images.release import Release

pytestmark = pytest.mark.timeout(1800)  # whoever comes first waits for the builds

STAGE = "omni-piper-piper"
GRACE = 60.0  # for what a quiet machine says in five
SPEECH = "/v1/audio/speech"
SENTENCE = "The quick brown fox jumps over the lazy dog."


def spoken(text: str) -> dict[str, str]:
    return {"model": "piper", "input": text, "voice": "", "response_format": "wav"}


def everything(release: Release) -> list[tuple[Running, str]]:
    return [(pod, one["name"]) for pod in release.pods.values() for one in pod.pod.serving]


def loudness(answer: bytes) -> tuple[float, float]:
    """Seconds of a WAV, and the root mean square of its samples."""
    with wave.open(io.BytesIO(answer)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
        return len(samples) / sound.getframerate(), float(np.sqrt(np.mean(np.square(samples / 32768.0))))


def test_a_sentence_is_spoken_over_https(release: Release) -> None:
    with release.client() as client:
        status, answer = release.post(client, SPEECH, spoken(SENTENCE))
    assert status == 200, answer
    seconds, loud = loudness(answer)
    assert 1 < seconds < 10
    assert loud > 0.01


def test_no_process_has_more_rights_than_it_needs(release: Release) -> None:
    for pod, name in everything(release):
        status = dict(
            line.split(":\t") for line in pod.execute(name, "cat", "/proc/1/status").splitlines() if ":\t" in line
        )
        assert status["Uid"].split()[0] == status["Gid"].split()[0] == "10001", name
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0, name
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), name


def test_only_what_is_mounted_can_be_written(release: Release) -> None:
    for pod, name in everything(release):
        refused = (
            "touch /x 2>/dev/null || touch /app/x 2>/dev/null || touch /etc/omni/tls/x 2>/dev/null || echo refused"
        )
        assert pod.execute(name, "sh", "-c", refused) == "refused", name
        pod.execute(name, "sh", "-c", f"touch /tmp/of-{name} && rm /tmp/of-{name}")


def test_weights_are_read_only_for_the_stages(release: Release) -> None:
    pod = release.pods[STAGE]
    assert pod.execute("synthesise", "sh", "-c", "touch /weights/x 2>/dev/null || echo refused") == "refused"


def test_the_arena_is_the_pods_and_in_memory_and_bounded(release: Release) -> None:
    pod = release.pods[STAGE]
    found = {name: pod.execute(name, "ls", "/run/omni").split() for name in ("relay", "preprocess", "synthesise")}
    assert found["relay"] == found["preprocess"] == found["synthesise"] != []
    kind, size = pod.execute("relay", "stat", "-f", "-c", "%T %b", "/run/omni").split()
    (volume,) = (one for one in pod.pod.spec["volumes"] if one["name"] == "arena")
    assert kind == "tmpfs"
    assert int(size) * 4096 == int(volume["emptyDir"]["sizeLimit"].removesuffix("Mi")) << 20


def test_the_limits_of_memory_hold(release: Release) -> None:
    limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    for pod, name in everything(release):
        assert int(pod.execute(name, "sh", "-c", limit)) <= 4 << 30, name


def test_the_weights_step_does_nothing_the_second_time(release: Release) -> None:
    pod = release.pods[STAGE]
    (step,) = pod.pod.steps
    release.node.run_again(pod, step, "weights-again")
    assert '"msg": "the weights are there"' in pod.logs("weights-again")


def test_pods_end_within_their_grace_and_finish_what_they_have(release: Release) -> None:
    second = release.node.start(release.pod(STAGE), "second")
    first = release.pods[STAGE]
    heard = [threading.Event() for _ in range(4)]
    with release.client() as client, ThreadPoolExecutor(8) as pool:
        text = spoken(f"{SENTENCE} " * 4)
        answers = [pool.submit(release.post, client, SPEECH, text, one.set) for one in heard]
        assert all(one.wait(60) for one in heard)
        # All containers at once, then the sidecars, as a kubelet does.
        ended = [*pool.map(lambda name: first.stop(name, GRACE), ("preprocess", "synthesise"))]
        ended.append(first.stop("relay", GRACE))
        said = [answer.result() for answer in answers]
    assert [status for status, _ in said] == [200] * 4
    assert min(loudness(answer)[0] for _, answer in said) > 8
    assert [code for code, _ in ended] == [0] * 3, [first.logs(one)[-2000:] for one in ("preprocess", "synthesise")]
    assert max(seconds for _, seconds in ended) < GRACE
    for pod, name in ((second, "synthesise"), (release.pods["omni-gateway"], "gateway")):
        assert pod.stop(name, GRACE)[0] == 0, name
    assert release.pods["omni-coordinator"].stop("coordinator", GRACE)[0] == 0
