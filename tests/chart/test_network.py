"""NetworkPolicies: everything is refused but the edges of the pipelines and the openings that the values ask for."""

from __future__ import annotations

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Render, port_of
from tests.chart.edges import Edge, allowed, isolates, openings, wanted

DNS = 53


def test_every_pod_refuses_what_no_rule_allows(rendered: Render) -> None:
    policies = rendered.of("NetworkPolicy")
    open_ = [
        (pod.name, way) for pod in rendered.pods for way in ("ingress", "egress") if not isolates(policies, way, pod)
    ]
    assert open_ == []


def test_no_edge_of_a_pipeline_is_refused(rendered: Render) -> None:
    assert sorted(wanted(rendered) - allowed(rendered)) == []


def test_no_other_connection_is_let_through(rendered: Render) -> None:
    assert sorted(allowed(rendered) - wanted(rendered)) == []


def test_the_pipelines_have_edges_at_all(rendered: Render) -> None:
    edges = wanted(rendered)
    assert any("thinker" in edge.target for edge in edges)
    assert len(edges) >= 8


def test_callers_from_outside_reach_the_gateways_port_and_nothing_else(rendered: Render) -> None:
    for opening in openings(rendered):
        if opening.direction == "ingress":
            pod = next(one for one in rendered.standing if one.name == opening.pod)
            for port in opening.ports:
                name = next(
                    one.get("name", "")
                    for container in pod.serving
                    for one in container["ports"]
                    if one["containerPort"] == port_of(pod, port)
                )
                public = pod.component == "gateway" and name in ("http", "https")
                assert public or "metrics" in name, opening
            assert opening.ports, f"every port is open: {opening}"


def test_by_default_pods_may_ask_for_names_and_nothing_else_outside(render: Renderer) -> None:
    out = {port for one in openings(render()) if one.direction == "egress" for port in one.ports}
    assert out == {DNS}


def test_without_policies_there_are_none(render: Renderer) -> None:
    assert not render({"networkPolicy": {"enabled": False}}).of("NetworkPolicy")


@pytest.mark.parametrize("missing", ["ingress", "egress"])
def test_the_comparison_sees_a_policy_that_lacks_a_rule(render: Renderer, missing: str) -> None:
    """The check above is worth something only when a wrong policy fails it."""
    rendered = Render(render().text)
    for policy in rendered.of("NetworkPolicy"):
        policy["spec"].get(missing, []).clear()
    assert wanted(rendered) - allowed(rendered)


def test_the_comparison_sees_a_policy_that_lets_all_through(render: Renderer) -> None:
    rendered = Render(render().text)
    for policy in rendered.of("NetworkPolicy"):
        policy["spec"]["ingress"] = [{}]
        policy["spec"]["egress"] = [{}]
    extra = allowed(rendered) - wanted(rendered)
    assert any(isinstance(edge, Edge) and edge.source == edge.target for edge in extra)
