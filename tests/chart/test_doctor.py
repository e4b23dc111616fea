"""What the command `omni` takes for granted of the chart: labels, names of ports and volumes, the test's pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.chart.conftest import Renderer
from tests.chart.documents import Document, Pod, environment
from tests.chart.helm import CHART, NAMESPACE, RELEASE, Helm
from tests.chart.topologies import TOPOLOGIES
from tests.lab.kube_server import cluster

from omni_cli.cluster.pods import metrics_ports, port_named
from omni_cli.doctor.parse import parse_pod, parse_workload, secrets_with_certificates


def as_running(pod: Pod) -> Document:
    return {"metadata": {**pod.metadata, "name": "a-pod"}, "spec": pod.spec}


def test_every_process_with_metrics_is_found_by_its_port_s_name(render: Renderer, topology: str) -> None:
    for pod in render(**TOPOLOGIES[topology].arguments()).standing:
        found = {port.container: port.path for port in metrics_ports(as_running(pod), NAMESPACE)}
        serving = {
            str(container["name"]): value
            for container in pod.serving
            for name, value in environment(container).items()
            if name.endswith("_METRICS_PORT")
        }
        assert serving, pod.name
        assert found.keys() == serving.keys(), pod.name
        for container, port in serving.items():
            assert f"/a-pod:{port}/" in found[container]


def test_deployments_and_their_pods_have_one_name_for_people(render: Renderer, topology: str) -> None:
    for pod in render(**TOPOLOGIES[topology].arguments()).standing:
        workload, running = parse_workload(pod.owner), parse_pod(as_running(pod))
        assert workload.what == running.what
        assert running.version
        assert (running.component == "stage") == bool(running.group and running.pipeline)
        assert running.component != "test"


def test_the_gateway_s_port_the_arena_and_the_certificates_are_found(render: Renderer, topology: str) -> None:
    documents = render(**TOPOLOGIES[topology].arguments())
    secrets = set(secrets_with_certificates(as_running(pod) for pod in documents.standing))
    assert {f"{RELEASE}-{name}-tls" for name in ("gateway", "coordinator", "stage", "relay")} <= secrets
    for pod in documents.standing:
        if pod.component == "gateway":
            assert port_named(as_running(pod), "https", "http") == ("https", 8000)
    for pod in documents.stages():
        running = parse_pod(as_running(pod))
        assert running.memory["arena"] > 0
        (relay,) = (container for container in running.containers if container.name == "relay")
        assert "arena" in relay.mounts
        assert not relay.once


def test_of_a_release_that_helm_has_just_made_the_doctor_says_that_pods_are_missing(helm: Helm, tmp_path: Path) -> None:
    """The API server in memory has no controllers that would make them."""
    with cluster(tmp_path, NAMESPACE) as fake:
        Helm(helm.major, helm.home, {"KUBECONFIG": str(fake.kubeconfig)})("install", RELEASE, CHART)
        command = [sys.executable, "-m", "omni_cli", "doctor", "-n", NAMESPACE, "--kubeconfig", str(fake.kubeconfig)]
        done = subprocess.run(
            command,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")
    assert "✗ thinker should have 1 pod and has 0. [deployment omni-qwen3-omni-thinker]" in done.stdout
    assert "✗ gateway should have 1 pod and has 0. [deployment omni-gateway]" in done.stdout
