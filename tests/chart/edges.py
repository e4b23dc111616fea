"""Who may reach whom: what the pipelines' graphs ask for, and what a render's NetworkPolicies let through.

Both are sets of (pod, pod, port), so that they can be compared both ways. What comes from outside the release or goes
there (callers, Prometheus, DNS, a hub of weights, a collector of traces) is not among them: `openings` lists it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.chart.documents import Document, Pod, Render, environment, port_of, selects
from tests.chart.helm import NAMESPACE

from omni_common.pipeline import PipelineConfig

RELAY_PORT = 7080


class Edge(NamedTuple):
    """One pod may open connections to a port of another, or of its own replicas."""

    source: str
    target: str
    port: int


class Opening(NamedTuple):
    """A rule for what is outside the release."""

    pod: str
    direction: str  # ingress, egress
    ports: tuple[int | str, ...]  # none: every port
    peers: str


def pipelines(render: Render) -> Mapping[str, PipelineConfig]:
    """The pipeline files of the render's ConfigMaps, by the pipelines' names."""
    texts = (text for one in render.of("ConfigMap") for text in (one.get("data") or {}).values())
    contents = (json.loads(text) for text in texts if text.lstrip().startswith("{"))
    read = [PipelineConfig.model_validate(content) for content in contents if "entry" in content]
    return {one.name: one for one in read}


def stage_ports(pod: Pod) -> Mapping[str, int]:
    """The gRPC port of each stage of a pod."""
    ports: dict[str, int] = {}
    for container in pod.containers:
        told = environment(container)
        first = int(told["OMNI_STAGE_BIND"].rpartition(":")[2])
        for place, stage in enumerate(told["OMNI_STAGE_STAGE"].split(",")):
            ports[stage.strip()] = first + place
    return ports


def wanted(render: Render) -> frozenset[Edge]:
    """The edges without which something would not work, and no other."""
    return frozenset((*_to_coordinators(render), *_to_gateways(render), *_between_stages(render)))


def _to_coordinators(render: Render) -> Iterator[Edge]:
    for coordinator in (pod for pod in render.standing if pod.component == "coordinator"):
        port = port_of(coordinator, "grpc")
        for source in render.standing:
            if source.component in ("gateway", "stage"):
                yield Edge(source.name, coordinator.name, port)


def _to_gateways(render: Render) -> Iterator[Edge]:
    for gateway in (pod for pod in render.standing if pod.component == "gateway"):
        port = port_of(gateway, "https" if "OMNI_GATEWAY_HTTPS_CERT" in environment(gateway.containers[0]) else "http")
        yield from (Edge(pod.name, gateway.name, port) for pod in render.pods if pod.is_test)


def _between_stages(render: Render) -> Iterator[Edge]:
    for pipeline in pipelines(render).values():
        pods = [pod for pod in render.stages() if pod.labels["omni.dev/pipeline"] == pipeline.name]
        home = {stage: (pod, port) for pod in pods for stage, port in stage_ports(pod).items()}
        for stage in pipeline.stages:
            for next_stage in (*stage.to, *stage.stream_to):
                source, (target, port) = home[stage.name][0], home[next_stage]
                yield Edge(source.name, target.name, port)
                yield Edge(source.name, target.name, RELAY_PORT)  # the producer's relay dials the consumer's


def allowed(render: Render) -> frozenset[Edge]:
    """What the policies let through between the release's pods, of all the ports that these have."""
    policies = render.of("NetworkPolicy")
    return frozenset(
        Edge(source.name, target.name, port)
        for source in render.pods
        for target in render.standing
        for port in _ports(target)
        if _lets(policies, "egress", source, target, port) and _lets(policies, "ingress", target, source, port)
    )


def _ports(pod: Pod) -> Iterator[int]:
    for container in pod.serving:
        yield from (one["containerPort"] for one in container.get("ports", ()))


def _lets(policies: object, direction: str, pod: Pod, other: Pod, port: int) -> bool:
    """Whether a policy of `pod` lets the two speak; the port is the one of whichever is dialled."""
    dialled = pod if direction == "ingress" else other
    rules = list(rules_of(policies, direction, pod))
    if not rules and not isolates(policies, direction, pod):
        return True
    return any(_has_port(rule, dialled, port) and _has_peer(rule, direction, other) for rule in rules)


def isolates(policies: object, direction: str, pod: Pod) -> bool:
    """Whether all is refused that no rule allows."""
    return any(direction.capitalize() in one["spec"]["policyTypes"] for one in _of(policies, pod))


def rules_of(policies: object, direction: str, pod: Pod) -> Iterator[Document]:
    for policy in _of(policies, pod):
        if direction.capitalize() in policy["spec"]["policyTypes"]:
            yield from policy["spec"].get(direction) or ()


def _of(policies: object, pod: Pod) -> Iterator[Document]:
    assert isinstance(policies, (list, tuple))
    return (one for one in policies if selects(one["spec"]["podSelector"], pod.labels))


def _has_port(rule: Document, dialled: Pod, port: int) -> bool:
    return not rule.get("ports") or any(_is_port(one, dialled, port) for one in rule["ports"])


def _is_port(one: Document, dialled: Pod, port: int) -> bool:
    if one.get("protocol", "TCP") != "TCP":
        return False
    first = one.get("port")
    if isinstance(first, str):
        try:
            return port_of(dialled, first) == port
        except LookupError:
            return False
    return first is None or first <= port <= one.get("endPort", first)


def _has_peer(rule: Document, direction: str, other: Pod) -> bool:
    peers = rule.get("from" if direction == "ingress" else "to")
    return not peers or any(_is_peer(one, other) for one in peers)


def _is_peer(peer: Document, other: Pod) -> bool:
    if "ipBlock" in peer:
        # A block of addresses is for what is outside; a policy that opens the world opens it to our pods too.
        return peer["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0") and not peer["ipBlock"].get("except")
    namespaces = peer.get("namespaceSelector")
    if namespaces is not None and not selects(namespaces, {"kubernetes.io/metadata.name": NAMESPACE}):
        return False
    return "podSelector" not in peer or selects(peer["podSelector"], other.labels)


def openings(render: Render) -> Iterator[Opening]:
    """The rules that name something outside the release."""
    policies = render.of("NetworkPolicy")
    for pod in render.pods:
        for direction, key in (("ingress", "from"), ("egress", "to")):
            for rule in rules_of(policies, direction, pod):
                peers: list[Document] = rule.get(key) or [{}]
                outside = [peer for peer in peers if _is_outside(peer)]
                if outside:
                    ports = tuple(one.get("port", "every") for one in rule.get("ports") or ())
                    yield Opening(pod.name, direction, ports, json.dumps(outside, sort_keys=True))


def _is_outside(peer: Document) -> bool:
    return "namespaceSelector" in peer or "ipBlock" in peer or not peer.get("podSelector")
