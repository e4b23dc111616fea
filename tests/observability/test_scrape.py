"""What the chart hands to Prometheus and Grafana is what is written here, under the labels that it asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.chart.documents import Render
from tests.chart.helm import Helm
from tests.chart.tools import MAJORS, NoTools, tools_of
from tests.observability.written import BOARDS, RULES


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """With all that watches switched on."""
    try:
        tools_of(max(MAJORS))
    except NoTools as reason:
        pytest.skip(f"THE CHART IS NOT TESTED HERE: {reason}")
    on = {"enabled": True}
    values = {"metrics": {"podMonitor": on, "prometheusRule": on, "dashboards": on}}
    return Helm(max(MAJORS), tmp_path_factory.mktemp("helm")).render(values=values)


def of_kind(rendered: Render, kind: str) -> list[dict[str, Any]]:
    return [dict(document) for document in rendered.documents if document["kind"] == kind]


def test_targets_have_the_job_and_the_pipeline_that_rules_and_dashboards_ask_for(rendered: Render) -> None:
    [monitor] = of_kind(rendered, "PodMonitor")
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        labels = {relabeling["targetLabel"]: relabeling for relabeling in endpoint["relabelings"]}
        assert labels["job"]["replacement"] == "omni"
        assert labels["pipeline"]["sourceLabels"] == ["__meta_kubernetes_pod_label_omni_dev_pipeline"]


def test_every_port_with_metrics_is_scraped(rendered: Render) -> None:
    [monitor] = of_kind(rendered, "PodMonitor")
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    there = {
        port["name"]
        for deployment in of_kind(rendered, "Deployment")
        for kind in ("containers", "initContainers")
        for container in deployment["spec"]["template"]["spec"].get(kind, ())
        for port in container.get("ports", ())
        if "metrics" in port["name"]
    }
    assert len(there) > 2
    assert there <= scraped


def test_the_rules_arrive_whole(rendered: Render) -> None:
    [rule] = of_kind(rendered, "PrometheusRule")
    assert rule["spec"]["groups"] == [group for file in RULES.values() for group in file["groups"]]


@pytest.mark.parametrize("name", BOARDS)
def test_the_dashboards_arrive_whole(rendered: Render, name: str) -> None:
    files = {file: text for config in of_kind(rendered, "ConfigMap") for file, text in config["data"].items()}
    assert json.loads(files[f"{name}.json"]) == BOARDS[name]
