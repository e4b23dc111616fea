"""A render as data: its documents, its pods, and what selects them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

Document = Mapping[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C where there is one
    """Refuses a key that stands twice in a mapping, of which YAML's readers keep the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{', '.join(map(str, twice))} stands twice in a mapping, near {node.start_mark}")
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Pod:
    """A pod template of a workload, or a pod of its own."""

    owner: Document
    metadata: Document
    spec: Document

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def labels(self) -> Document:
        return self.metadata.get("labels") or {}

    @property
    def component(self) -> str:
        return str(self.labels.get("app.kubernetes.io/component", ""))

    @property
    def is_test(self) -> bool:
        return "test" in str(self.owner["metadata"].get("annotations", {}).get("helm.sh/hook", ""))

    @property
    def containers(self) -> Sequence[Document]:
        return list(self.spec["containers"])

    @property
    def sidecars(self) -> Sequence[Document]:
        """Init containers that stay."""
        return [one for one in self.spec.get("initContainers", ()) if one.get("restartPolicy") == "Always"]

    @property
    def steps(self) -> Sequence[Document]:
        """Init containers that end."""
        return [one for one in self.spec.get("initContainers", ()) if one.get("restartPolicy") != "Always"]

    @property
    def serving(self) -> Sequence[Document]:
        """Every container that stays."""
        return [*self.sidecars, *self.containers]

    @property
    def all_containers(self) -> Sequence[Document]:
        return [*self.spec.get("initContainers", ()), *self.containers]

    @property
    def runs_on(self) -> bool:
        """Whether it is meant to stay, as a test's or a job's pod is not."""
        return self.owner["kind"] in ("Deployment", "StatefulSet", "DaemonSet")


class Render:
    """What `helm template` wrote."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def documents(self) -> Sequence[Document]:
        return [one for one in yaml.load_all(self.text, Loader=_Loader) if one]  # a safe loader

    def of(self, *kinds: str) -> Sequence[Document]:
        return [one for one in self.documents if one["kind"] in kinds]

    def one(self, kind: str, name: str) -> Document:
        """Raises LookupError with the names there are."""
        for document in self.of(kind):
            if document["metadata"]["name"] == name:
                return document
        names = ", ".join(one["metadata"]["name"] for one in self.of(kind))
        raise LookupError(f"no {kind} '{name}'; there are: {names}")

    @cached_property
    def pods(self) -> Sequence[Pod]:
        """Of every workload, and those of their own: hooks."""
        return [*self._templates(), *(Pod(one, one["metadata"], one["spec"]) for one in self.of("Pod"))]

    def _templates(self) -> Iterator[Pod]:
        for owner in self.of(*WORKLOADS):
            template = owner["spec"]["template"]
            yield Pod(owner, template.get("metadata", {}), template["spec"])

    @property
    def standing(self) -> Sequence[Pod]:
        return [pod for pod in self.pods if pod.runs_on]

    def stages(self) -> Sequence[Pod]:
        return [pod for pod in self.standing if pod.component == "stage"]


def environment(container: Document) -> Mapping[str, str]:
    """Plain values only."""
    return {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}


def selects(selector: Document | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; of its expressions, those with In and Exists are known."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or ())


def _holds(expression: Document, labels: Mapping[str, str]) -> bool:
    match expression["operator"]:
        case "In":
            return labels.get(expression["key"]) in expression["values"]
        case "Exists":
            return expression["key"] in labels
        case other:
            raise NotImplementedError(f"the operator {other} of a selector")


def port_of(container_or_pod: Document | Pod, port: int | str) -> int:
    """A port's number, by its number or its name. Raises LookupError."""
    containers = container_or_pod.serving if isinstance(container_or_pod, Pod) else [container_or_pod]
    ports = [one for container in containers for one in container.get("ports", ())]
    for one in ports:
        if port in (one["containerPort"], one.get("name")):
            return int(one["containerPort"])
    raise LookupError(f"no port '{port}' among {[(one.get('name'), one['containerPort']) for one in ports]}")
