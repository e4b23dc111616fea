"""Labels and names, what selects what, disruption budgets, autoscaling: what a render's objects are to each other."""

from __future__ import annotations

import re

import pytest
from tests.chart.conftest import Renderer
from tests.chart.documents import Document, Pod, Render, port_of, selects
from tests.chart.helm import RELEASE

NAME, INSTANCE, COMPONENT = (f"app.kubernetes.io/{one}" for one in ("name", "instance", "component"))
EVERYWHERE = {
    NAME: "omni",
    INSTANCE: RELEASE,
    "app.kubernetes.io/part-of": "omni",
    "app.kubernetes.io/managed-by": "Helm",
}
SELECTING = {NAME, INSTANCE, COMPONENT, "omni.dev/pipeline", "omni.dev/placement-group"}
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def test_every_object_says_whose_it_is(rendered: Render) -> None:
    for one in rendered.documents:
        labels = one["metadata"]["labels"]
        assert EVERYWHERE.items() <= labels.items(), f"{one['kind']}/{one['metadata']['name']}"
        assert "app.kubernetes.io/version" in labels, one["metadata"]["name"]
        assert "helm.sh/chart" in labels, one["metadata"]["name"]


def test_names_are_labels_and_begin_with_the_release(rendered: Render) -> None:
    for one in rendered.documents:
        name = one["metadata"]["name"]
        assert DNS_LABEL.fullmatch(name), name
        assert name.startswith(RELEASE), name


def test_no_two_objects_have_one_name(rendered: Render) -> None:
    names = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in rendered.documents]
    assert sorted(set(names)) == sorted(names)


def test_no_object_names_its_namespace(rendered: Render) -> None:
    """Helm's own flag decides, so that `helm template | kubectl apply --namespace` means it too."""
    assert {one["metadata"].get("namespace", "team") for one in rendered.documents} == {"team"}


def test_selectors_hold_only_what_never_changes(rendered: Render) -> None:
    for one in rendered.of("Deployment"):
        labels = one["spec"]["selector"]["matchLabels"]
        assert labels.keys() <= SELECTING, one["metadata"]["name"]
        assert {NAME, INSTANCE, COMPONENT} <= labels.keys()


def test_every_deployment_selects_its_own_pods_and_no_others(rendered: Render) -> None:
    for one in rendered.of("Deployment"):
        chosen = [pod.name for pod in rendered.pods if selects(one["spec"]["selector"], pod.labels)]
        assert chosen == [f"Deployment/{one['metadata']['name']}"]


def test_users_labels_reach_pods_and_no_selector(render: Renderer) -> None:
    rendered = render({"commonLabels": {"team": "speech"}})
    assert all(pod.labels["team"] == "speech" for pod in rendered.standing)
    assert not [one for one in rendered.of("Deployment") if "team" in one["spec"]["selector"]["matchLabels"]]


def test_services_lead_to_ports_of_pods(rendered: Render) -> None:
    for service in rendered.of("Service"):
        pods = [pod for pod in rendered.standing if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert len(pods) == 1, f"{service['metadata']['name']} selects {[pod.name for pod in pods]}"
        for port in service["spec"]["ports"]:
            port_of(pods[0], port.get("targetPort", port["port"]))


def test_the_coordinators_service_names_every_pod(rendered: Render) -> None:
    service = rendered.one("Service", f"{RELEASE}-coordinator")
    assert service["spec"]["clusterIP"] == "None"


def test_disruption_budgets_select_one_workload_and_leave_room(rendered: Render) -> None:
    for budget in rendered.of("PodDisruptionBudget"):
        pods = [pod for pod in rendered.standing if selects(budget["spec"]["selector"], pod.labels)]
        assert len(pods) == 1, budget["metadata"]["name"]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert ("maxUnavailable" in budget["spec"]) != ("minAvailable" in budget["spec"])
        assert replicas(rendered, pods[0]) > 1, f"{budget['metadata']['name']} would block every drain of a node"


def test_what_has_replicas_is_protected(rendered: Render) -> None:
    for pod in rendered.standing:
        if replicas(rendered, pod) > 1:
            budgets = [
                one for one in rendered.of("PodDisruptionBudget") if selects(one["spec"]["selector"], pod.labels)
            ]
            assert len(budgets) == 1, pod.name


def test_a_workload_has_one_autoscaler_at_most(rendered: Render) -> None:
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in rendered.of("HorizontalPodAutoscaler", "ScaledObject")]
    assert sorted(set(targets)) == sorted(targets)
    for name in targets:
        deployment = rendered.one("Deployment", name)
        assert "replicas" not in deployment["spec"], f"{name}: an upgrade would undo what the autoscaler did"


def test_updates_take_no_capacity_away(rendered: Render) -> None:
    for one in rendered.of("Deployment"):
        strategy = one["spec"]["strategy"]
        spare = strategy["rollingUpdate"]
        # A GPU that a new pod could have beside the old one is not there: then the old one goes first.
        gpu = "nvidia.com/gpu" in str(one["spec"]["template"])
        assert (spare["maxUnavailable"] == 0) != (gpu and spare["maxSurge"] == 0), one["metadata"]["name"]


def test_a_rollout_finds_room_where_every_node_has_a_pod_already(rendered: Render) -> None:
    for pod in rendered.standing:
        for spread in pod.spec["topologySpreadConstraints"]:
            assert spread["matchLabelKeys"] == ["pod-template-hash"], pod.name
            assert spread["nodeTaintsPolicy"] == "Honor", f"{pod.name}: the control plane's nodes count as empty"


def test_a_spread_with_its_own_selector_is_left_alone(render: Renderer) -> None:
    mine = {
        "maxSkew": 1,
        "topologyKey": "rack",
        "whenUnsatisfiable": "DoNotSchedule",
        "nodeTaintsPolicy": "Ignore",
        "labelSelector": {"matchLabels": {"a": "b"}},
    }
    pods = render({"podDefaults": {"topologySpreadConstraints": [mine]}}).standing
    assert all(pod.spec["topologySpreadConstraints"] == [mine] for pod in pods)


def test_pods_may_be_recreated(render: Renderer) -> None:
    for one in render({"podDefaults": {"strategy": {"type": "Recreate"}}}).of("Deployment"):
        assert one["spec"]["strategy"] == {"type": "Recreate"}, "bounds of a rolling update are refused beside it"


def test_secrets_and_config_maps_that_pods_name_are_there(rendered: Render) -> None:
    there = {
        (one["kind"], one["metadata"]["name"]) for one in rendered.of("Secret", "ConfigMap", "PersistentVolumeClaim")
    }
    there |= {("Secret", one["spec"]["secretName"]) for one in rendered.of("Certificate")}
    for pod in rendered.pods:
        for volume in pod.spec.get("volumes", ()):
            missing = named(volume) - there
            assert not missing, f"{pod.name}: {missing}"


def test_a_second_release_in_the_namespace_shares_nothing(render: Renderer) -> None:
    first, second = render(), render(release="second")
    names = {(one["kind"], one["metadata"]["name"]) for one in first.documents}
    assert not names & {(one["kind"], one["metadata"]["name"]) for one in second.documents}
    for one in first.of("Deployment"):
        assert not [pod.name for pod in second.pods if selects(one["spec"]["selector"], pod.labels)]


@pytest.mark.parametrize("release", ["o", "a-release-of-a-name-as-long-as-helm-lets-names-be-553"])
def test_short_and_long_names_hold(release: str, render: Renderer) -> None:
    for one in render(release=release).documents:
        assert DNS_LABEL.fullmatch(one["metadata"]["name"]), one["metadata"]["name"]
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())


def replicas(render: Render, pod: Pod) -> int:
    """At most, autoscaled or not."""
    name = pod.owner["metadata"]["name"]
    for one in render.of("HorizontalPodAutoscaler", "ScaledObject"):
        if one["spec"]["scaleTargetRef"]["name"] == name:
            return int(one["spec"].get("maxReplicas", one["spec"].get("maxReplicaCount")))
    return int(pod.owner["spec"].get("replicas", 1))


def named(volume: Document) -> set[tuple[str, str]]:
    named = set()
    for source in (volume, *volume.get("projected", {}).get("sources", ())):
        if (secret := source.get("secret")) and not secret.get("optional"):
            named.add(("Secret", secret.get("secretName") or secret["name"]))
        if (config := source.get("configMap")) and not config.get("optional"):
            named.add(("ConfigMap", config["name"]))
        if claim := source.get("persistentVolumeClaim"):
            named.add(("PersistentVolumeClaim", claim["claimName"]))
    return named
