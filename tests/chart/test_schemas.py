"""Every document as the oldest and the newest Kubernetes would read it, strictly."""

from __future__ import annotations

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Render
from tests.chart.golden import normalised
from tests.chart.helm import NEWEST, Helm, Refused
from tests.chart.schemas import complaints
from tests.chart.topologies import TOPOLOGIES


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_kubernetes_takes_every_document(topology: str, age: str, render: Renderer) -> None:
    version = TOPOLOGIES[topology].oldest if age == "oldest" else NEWEST
    rendered = render(**TOPOLOGIES[topology].arguments(), kube_version=version)
    assert [what for document in rendered.documents for what in complaints(document, version)] == []


def test_both_helms_render_the_same(topology: str, helm: Helm, rendered: Render) -> None:
    again = helm.render(**TOPOLOGIES[topology].arguments())
    assert normalised(again) == normalised(rendered)


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"1\.29"):
        helm.render(kube_version="1.28.0")


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"apiVersion": "v1", "kind": "Service", "spec": {"prts": []}}, "prts"),
        ({"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "spec": {}}, "does not know"),
        ({"apiVersion": "example.com/v1", "kind": "Unheard", "spec": {}}, "does not know"),
        ({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "spec": {}}, "selector"),
        (
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "spec": {"scaleTargetRef": {"name": "x"}, "triggers": [], "minReplicas": 1},
            },
            "minReplicas is not a field",
        ),
        ({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "spec": {"selfsigned": {}}}, "selfsigned"),
    ],
)
def test_what_is_wrong_is_seen(document: dict[str, object], complaint: str) -> None:
    (told, *_) = complaints({**document, "metadata": {"name": "x"}}, NEWEST)
    assert complaint in told
