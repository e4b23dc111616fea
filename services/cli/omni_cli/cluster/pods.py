"""Pure: which pods of a namespace are a release's, and where each process in them serves its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
PIPELINE = "omni.dev/pipeline"
GROUP = "omni.dev/placement-group"


@dataclass(frozen=True, slots=True)
class MetricsPort:
    """A process of a pod; `path` asks it for its page through the API server's proxy."""

    pod: str
    container: str
    pipeline: str
    group: str
    port: int
    path: str

    @property
    def name(self) -> str:
        return f"{self.pod}/{self.container}"


def selector(release: str) -> str:
    return f"{INSTANCE}={release}"


def labels_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("labels") or {}


def proxy_path(namespace: str, pod: str, port: int, path: str, *, scheme: str = "") -> str:
    """The server dials the pod itself: neither a Service nor a way into the cluster is needed."""
    target = f"{scheme}:{pod}:{port}" if scheme else f"{pod}:{port}"
    return f"/api/v1/namespaces/{namespace}/pods/{target}/proxy/{path}"


def metrics_ports(pod: Mapping[str, Any], namespace: str) -> Iterator[MetricsPort]:
    """Of every container that says where: by a port whose name has `metrics` in it."""
    labels, name = labels_of(pod), str(pod["metadata"]["name"])
    for container in all_containers(pod):
        for port in container.get("ports") or ():
            if "metrics" in str(port.get("name", "")).split("-"):
                number, box = int(port["containerPort"]), str(container["name"])
                path = proxy_path(namespace, name, number, "metrics")
                yield MetricsPort(name, box, labels.get(PIPELINE, ""), labels.get(GROUP, ""), number, path)


def all_containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those that run for the pod's whole life: sidecars are init containers that are started again."""
    spec = pod.get("spec") or {}
    yield from (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    yield from spec.get("containers") or ()


def port_named(pod: Mapping[str, Any], *names: str) -> tuple[str, int] | None:
    for container in all_containers(pod):
        for port in container.get("ports") or ():
            if port.get("name") in names:
                return str(port["name"]), int(port["containerPort"])
    return None
