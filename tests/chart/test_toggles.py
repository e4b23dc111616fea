"""What single values do to a render: TLS off, keys, monitors, autoscalers, weights, what may not be there together."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from tests.chart.conftest import Renderer
from tests.chart.documents import Render, environment, selects
from tests.chart.edges import allowed, openings, wanted
from tests.chart.helm import CHART, OLDEST, RELEASE, Helm, Refused
from tests.chart.tools import ROOT
from tests.chart.topologies import TOPOLOGIES

QWEN = "qwen3-omni"
NO_TLS = {"tls": {"source": "none"}}


@pytest.fixture
def observed(render: Renderer) -> Render:
    return render(**TOPOLOGIES["observed"].arguments())


@pytest.fixture
def scaled(render: Renderer) -> Render:
    return render(**TOPOLOGIES["scaled"].arguments())


def test_helm_lints_it_strictly(helm: Helm) -> None:
    told = helm("lint", "--strict", CHART)
    assert "0 chart(s) failed" in told
    assert "WARNING" not in told


@pytest.mark.parametrize("overlay", ["values-gpu.yaml", "values-ha.yaml"])
def test_helm_lints_its_overlays(overlay: str, helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", CHART / overlay)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"gatway": {"replicas": 2}}, "gatway"), ({"auth": {"enabled": True}}, "auth.keys is empty")],
)
def test_both_helms_refuse_wrong_values(values: dict[str, Any], sentence: str, helm: Helm) -> None:
    with pytest.raises(Refused, match=sentence):
        helm.render(values=values)


def test_a_packaged_chart_renders_the_same(helm: Helm) -> None:
    told = helm("package", CHART, "--destination", helm.home)
    (package,) = (word for word in told.split() if word.endswith(".tgz"))
    lines = helm("template", RELEASE, package).count("\n")
    assert lines == helm("template", RELEASE, CHART).count("\n"), "a file is ignored that the chart needs"


def test_without_tls_nothing_speaks_of_it(render: Renderer) -> None:
    rendered = render(NO_TLS)
    assert not rendered.of("Secret")
    for pod in rendered.standing:
        for container in pod.serving:
            assert not [name for name in environment(container) if "TLS" in name or "HTTPS" in name]
    service = rendered.one("Service", f"{RELEASE}-gateway")
    assert [(one["name"], one["port"]) for one in service["spec"]["ports"]] == [("http", 80)]
    assert wanted(rendered) == allowed(rendered)


def test_probes_speak_as_the_gateway_does(render: Renderer) -> None:
    for values, scheme in (({}, "HTTPS"), (NO_TLS, "HTTP")):
        (gateway,) = (pod for pod in render(values).standing if pod.component == "gateway")
        assert gateway.containers[0]["readinessProbe"]["httpGet"].get("scheme", "HTTP") == scheme


def test_keys_are_a_secret_of_hashes_that_the_gateway_reads(observed: Render) -> None:
    (gateway,) = (pod for pod in observed.standing if pod.component == "gateway")
    assert "OMNI_GATEWAY_API_KEYS" in environment(gateway.containers[0])
    (keys,) = (one["stringData"] for one in observed.of("Secret") if "keys.json" in one.get("stringData", {}))
    told = json.loads(keys["keys.json"])["keys"]
    assert told["team-a"]["requests_per_minute"] == 60
    assert told["team-a"]["concurrent_requests"] == 8
    assert set(told["team-b"]) == {"sha256"}


def test_every_port_of_metrics_is_scraped_and_no_other(observed: Render) -> None:
    (monitor,) = observed.of("PodMonitor")
    scraped = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    chosen = [pod for pod in observed.standing if selects(monitor["spec"]["selector"], pod.labels)]
    assert len(chosen) == len(observed.standing)
    ports = [one["name"] for pod in chosen for container in pod.serving for one in container["ports"]]
    assert scraped == {name for name in ports if "metrics" in name}


def test_prometheus_may_reach_what_it_scrapes(observed: Render) -> None:
    for pod in observed.standing:
        ports = {one["containerPort"] for each in pod.serving for one in each["ports"] if "metrics" in one["name"]}
        opened = {
            port
            for one in openings(observed)
            for port in one.ports
            if (one.pod, one.direction) == (pod.name, "ingress")
        }
        assert ports <= opened, pod.name


def test_alerts_and_dashboards_are_the_charts_files(observed: Render) -> None:
    (rules,) = observed.of("PrometheusRule")
    files = [yaml.safe_load(path.read_text()) for path in sorted(CHART.glob("rules/*.yaml"))]
    assert rules["spec"]["groups"] == [group for file in files for group in file["groups"]]
    boards = [one for one in observed.of("ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
    told = {key: json.loads(text) for one in boards for key, text in one["data"].items()}
    assert told == {path.name: json.loads(path.read_text()) for path in CHART.glob("dashboards/*.json")}


def test_no_dashboard_is_too_large_for_a_config_map(observed: Render) -> None:
    assert all(len(json.dumps(one)) < 900_000 for one in observed.of("ConfigMap"))


def test_traces_may_leave_to_the_collector_only(observed: Render) -> None:
    out = {port for one in openings(observed) if one.direction == "egress" for port in one.ports}
    assert out == {53, 4317}


def test_the_gateway_scales_by_kubernetes_and_a_rare_stage_by_keda_to_none(scaled: Render) -> None:
    targets = {
        one["spec"]["scaleTargetRef"]["name"]: one for one in scaled.of("HorizontalPodAutoscaler", "ScaledObject")
    }
    assert targets[f"{RELEASE}-gateway"]["kind"] == "HorizontalPodAutoscaler"
    assert targets[f"{RELEASE}-{QWEN}-thinker"]["kind"] == "HorizontalPodAutoscaler"
    talker = targets[f"{RELEASE}-{QWEN}-talker"]
    assert (talker["kind"], talker["spec"]["minReplicaCount"]) == ("ScaledObject", 0)
    assert talker["spec"]["fallback"]["replicas"] >= 1, "without Prometheus the stage must be there"


def test_autoscalers_go_by_metrics_that_there_are(scaled: Render) -> None:
    declared = (ROOT / "libs/omni_common/src/omni_common/telemetry/names.py").read_text()
    told = json.dumps([one["spec"] for one in scaled.of("HorizontalPodAutoscaler", "ScaledObject")])
    metrics = {re.sub("_(bucket|p95|total)$", "", name) for name in re.findall(r"\bomni_[a-z0-9_]+", told)}
    assert len(metrics) >= 6
    assert {name for name in metrics if f'"{name}' not in declared} == set()


def test_scaling_down_waits_for_what_a_pod_has_in_hand(scaled: Render) -> None:
    for one in scaled.of("HorizontalPodAutoscaler"):
        assert one["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 60
    for one in scaled.of("ScaledObject"):
        behaviour = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 60


def test_every_replica_of_a_claim_has_gpus_of_its_own(render: Renderer) -> None:
    rendered = render(**TOPOLOGIES["dra"].arguments())
    templates = {one["metadata"]["name"] for one in rendered.of("ResourceClaimTemplate")}
    for pod in rendered.stages():
        (claim,) = pod.spec["resourceClaims"]
        assert claim["resourceClaimTemplateName"] in templates
        users = [one for one in pod.containers if one["resources"].get("claims")]
        assert users
        assert all(one["resources"]["claims"] == [{"name": claim["name"]}] for one in users)


def test_another_claim_has_another_name_since_kubernetes_lets_nobody_change_one(render: Renderer) -> None:
    def named(count: int) -> set[str]:
        gpus = {"groupDefaults": {"gpu": {"mode": "dra", "count": count}}}
        return {one["metadata"]["name"] for one in render(gpus).of("ResourceClaimTemplate")}

    assert named(1)
    assert not named(1) & named(2)


def test_a_gateway_hears_the_request_that_brings_the_only_pipeline_back(render: Renderer) -> None:
    scaled = dict(TOPOLOGIES["scaled"].arguments()["values"])
    assert _asked_for_readiness(render(scaled)) == "/livez"
    another = {**scaled["pipelines"], "piper": {"enabled": True}}
    assert _asked_for_readiness(render({**scaled, "pipelines": another})) == "/readyz"


def _asked_for_readiness(rendered: Render) -> str:
    (gateway,) = [pod for pod in rendered.standing if pod.component == "gateway"]
    return str(gateway.containers[0]["readinessProbe"]["httpGet"]["path"])


def test_weights_from_the_hub_are_fetched_by_a_step_and_kept(render: Renderer) -> None:
    rendered = render(files=("values-gpu.yaml",))
    (claim,) = rendered.of("PersistentVolumeClaim")
    for pod in rendered.stages():
        (step,) = pod.steps
        told = environment(step)
        assert told["OMNI_WEIGHTS_SOURCE"] == "hub"
        assert told["OMNI_WEIGHTS_HUB_ID"] == "Qwen/Qwen3-Omni-30B-A3B-Instruct"
        claims = [one.get("persistentVolumeClaim", {}).get("claimName") for one in pod.spec["volumes"]]
        assert claim["metadata"]["name"] in claims
        assert [one for one in openings(rendered) if one.pod == pod.name and 443 in one.ports]


def test_weights_from_a_volume_are_read_only(render: Renderer) -> None:
    weights = {"source": "volume", "volume": {"claim": "models", "subPath": "qwen"}}
    for pod in render({"pipelines": {QWEN: {"weights": weights}}}).stages():
        for container in pod.containers:
            (mount,) = (one for one in container["volumeMounts"] if one["mountPath"] == "/weights")
            assert mount["readOnly"] is True


def test_the_oldest_kubernetes_gets_a_pause_that_it_knows(render: Renderer) -> None:
    for pod in render(kube_version=OLDEST).standing:
        for container in pod.containers:
            assert "exec" in container["lifecycle"]["preStop"], pod.name


def test_helm_test_asks_over_https_and_is_removed_when_it_has_passed(render: Renderer) -> None:
    (pod,) = (one for one in render().pods if one.is_test)
    policy = pod.owner["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert {"before-hook-creation", "hook-succeeded"} <= set(policy.split(","))
    assert f"https://{RELEASE}-gateway" in " ".join(pod.containers[0]["args"])
    assert not [one for one in render({"tests": {"enabled": False}}).pods if one.is_test]


def test_a_pipeline_that_is_off_leaves_nothing(render: Renderer) -> None:
    rendered = render({"pipelines": {QWEN: {"enabled": False}, "piper": {"enabled": True}}})
    assert QWEN not in rendered.text
    assert {pod.labels["omni.dev/pipeline"] for pod in rendered.stages()} == {"piper"}
