"""The API server's JSON, a person's amounts, and the last words of processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from tests.lab.kube_objects import container, foreign_pod, pod

from omni_cli.cluster.pods import metrics_ports, proxy_path
from omni_cli.doctor import parse
from omni_cli.doctor.quantities import amount_text, parse_quantity
from omni_cli.doctor.words import last_words


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", 0.5), ("2", 2), ("1Gi", 1 << 30), ("1.5Ki", 1536), ("10M", 1e7), ("2e3", 2000), ("1E", 1e18), ("?", 0)],
)
def test_quantities_are_read_as_the_cluster_writes_them(text: str, amount: float) -> None:
    assert parse_quantity(text) == amount


def test_amounts_are_said_as_people_say_them() -> None:
    said = [amount_text(*one) for one in (("cpu", 1), ("cpu", 0.25), ("memory", 3 << 30), ("nvidia.com/gpu", 2))]
    assert said == ["1 CPU", "0.25 CPUs", "3.0 GiB of memory", "2 × nvidia.com/gpu"]


def test_a_pod_asks_for_what_runs_together_or_for_its_greediest_first_step() -> None:
    spec = {
        "initContainers": [
            container("relay", requests={"cpu": "1"}, restartPolicy="Always"),
            container("weights", requests={"cpu": "4", "memory": "1Gi"}),
        ],
        "containers": [container("a", requests={"cpu": "1"}), container("b", limits={"cpu": "500m"})],
        "overhead": {"cpu": "100m"},
    }
    assert parse.requests_of(spec) == {"cpu": 5.1, "memory": 1 << 30}


def test_a_pod_that_has_ended_holds_nothing() -> None:
    done = foreign_pod("job", "node-a", gpu="1")
    assert parse.parse_use(done) is not None
    done["status"]["phase"] = "Succeeded"
    assert parse.parse_use(done) is None


def test_a_sidecar_is_no_first_step() -> None:
    made = parse.parse_pod(pod("p", init=[container("relay", restartPolicy="Always"), container("weights")]))
    assert [(c.name, c.once) for c in made.containers] == [("relay", False), ("weights", True), ("stage", False)]


def test_an_event_of_either_kind_of_api_is_read() -> None:
    new = {"regarding": {"kind": "Pod", "name": "p"}, "note": "hm", "eventTime": "2026-01-02T03:04:05.678901Z"}
    found = parse.parse_event(new)
    assert (found.kind, found.name, found.message) == ("Pod", "p", "hm")
    assert found.at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_secrets_of_volumes_for_tls_are_found() -> None:
    volumes = [
        {"name": "tls", "secret": {"secretName": "omni-stage-tls"}},
        {"name": "keys", "secret": {"secretName": "omni-api-keys"}},
        {"name": "https", "projected": {"sources": [{"secret": {"name": "mine"}}]}},
        {"name": "tmp", "emptyDir": {}},
    ]
    assert parse.secrets_with_certificates([pod("p", volumes=volumes)]) == ["mine", "omni-stage-tls"]


def test_every_process_of_a_pod_that_serves_metrics_is_found() -> None:
    boxes = [
        container("think", ports=[{"name": "metrics-0", "containerPort": 9100}]),
        container("mute", ports=[{"name": "grpc-1", "containerPort": 7120}]),
    ]
    relay = container("relay", restartPolicy="Always", ports=[{"name": "relay-metrics", "containerPort": 9080}])
    found = list(metrics_ports(pod("p", "stage", "thinker", containers=boxes, init=[relay]), "ns"))
    assert [(port.name, port.pipeline, port.group) for port in found] == [
        ("p/relay", "qwen3-omni", "thinker"),
        ("p/think", "qwen3-omni", "thinker"),
    ]
    assert found[1].path == "/api/v1/namespaces/ns/pods/p:9100/proxy/metrics"
    assert (
        proxy_path("ns", "p", 8000, "readyz", scheme="https") == "/api/v1/namespaces/ns/pods/https:p:8000/proxy/readyz"
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param([{"level": "ERROR", "msg": "No GPU."}, {"level": "INFO", "msg": "ended"}], "No GPU.", id="error"),
        pytest.param([{"level": "INFO", "msg": "fetched", "percent": 12.5}], "fetched (percent 12.5)", id="progress"),
        pytest.param(
            [{"level": "ERROR", "msg": "failed", "exception": "Traceback:\n  x\nValueError: no"}],
            "failed: ValueError: no",
            id="traceback",
        ),
        pytest.param(["Segmentation fault"], "Segmentation fault", id="no JSON"),
        pytest.param(["\x1b[31mred", ""], "·[31mred", id="controls"),
        pytest.param(["x" * 999], "x" * 299 + "…", id="long"),
        pytest.param([], "", id="nothing"),
    ],
)
def test_the_last_words_are_the_last_error_or_the_last_line(lines: list[object], said: str) -> None:
    log = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    assert last_words(log) == said
