"""A cluster's objects in memory, with just as much of controllers as tools wait for: what is made is ready at once.

Each change has a number and stands in a log; a watch is a place in that log.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]

# Of each API group and version: the resources by their kinds. What is not here, this cluster does not know.
KINDS: Mapping[str, Mapping[str, str]] = {
    "v1": {
        "configmaps": "ConfigMap",
        "events": "Event",
        "namespaces": "Namespace",
        "nodes": "Node",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "pods": "Pod",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "apps/v1": {
        "daemonsets": "DaemonSet",
        "deployments": "Deployment",
        "replicasets": "ReplicaSet",
        "statefulsets": "StatefulSet",
    },
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "batch/v1": {"jobs": "Job"},
    "networking.k8s.io/v1": {"ingresses": "Ingress", "networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
}
CLUSTER_WIDE = ("namespaces", "nodes")


class Place(NamedTuple):
    """Where an object is."""

    group_version: str
    resource: str
    namespace: str
    name: str


class Change(NamedTuple):
    number: int
    what: str  # ADDED, MODIFIED, DELETED
    place: Place
    object: Object


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer of the API server that is an error."""

    code: int
    reason: str
    message: str


class Store:
    """All of it; safe for many threads."""

    def __init__(self) -> None:
        self._objects: dict[Place, Object] = {}
        self._log: list[Change] = []
        self._changed = threading.Condition()
        self._closed = False

    @property
    def version(self) -> int:
        return len(self._log)

    def objects(self) -> list[Object]:
        """Everything there is."""
        with self._changed:
            return copy.deepcopy(list(self._objects.values()))

    def get(self, place: Place) -> Object:
        with self._changed:
            if place not in self._objects:
                raise Refusal(404, "NotFound", f'{place.resource} "{place.name}" not found')
            return copy.deepcopy(self._objects[place])

    def select(self, wanted: Callable[[Place, Object], bool]) -> list[Object]:
        with self._changed:
            return [copy.deepcopy(one) for place, one in self._objects.items() if wanted(place, one)]

    def create(self, place: Place, content: Object) -> Object:
        with self._changed:
            if place in self._objects:
                raise Refusal(409, "AlreadyExists", f'{place.resource} "{place.name}" already exists')
            return self._put(place, content)

    def put(self, place: Place, content: Object) -> Object:
        """Replaces it, or makes it."""
        with self._changed:
            return self._put(place, content)

    def change(self, place: Place, change: Callable[[Object], Object]) -> Object:
        """Raises Refusal where there is none."""
        with self._changed:
            return self._put(place, change(self.get(place)))

    def delete(self, place: Place) -> Object:
        with self._changed:
            gone = self.get(place)
            del self._objects[place]
            self._record("DELETED", place, gone)
            return gone

    def watch(self, since: int, seconds: float) -> Iterator[Change]:
        """The changes after that one as they come, until the time is over or the store is closed."""
        deadline = time.monotonic() + seconds
        while True:
            changes = self._after(since, deadline - time.monotonic())
            if not changes:
                return
            yield from changes
            since += len(changes)

    def _after(self, since: int, seconds: float) -> list[Change]:
        """None when the time is over or the store is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.version > since, seconds)
            return [] if self._closed else self._log[since:]

    def close(self) -> None:
        """Ends the watches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, place: Place, content: Object) -> Object:
        before = self._objects.get(place)
        made = copy.deepcopy(content)
        made.setdefault("apiVersion", place.group_version)
        made.setdefault("kind", KINDS[place.group_version][place.resource])
        metadata = made.setdefault("metadata", {})
        kept = before["metadata"] if before else {}
        metadata |= {
            "name": place.name,
            "uid": kept.get("uid", str(uuid.uuid4())),
            "creationTimestamp": kept.get("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
            "generation": kept.get("generation", 0) + (before is None or before.get("spec") != made.get("spec")),
            "resourceVersion": str(self.version + 1),
        }
        if place.namespace:
            metadata["namespace"] = place.namespace
        _settle(made)
        self._objects[place] = made
        self._record("MODIFIED" if before else "ADDED", place, made)
        return copy.deepcopy(made)

    def _record(self, what: str, place: Place, content: Object) -> None:
        self._log.append(Change(self.version + 1, what, place, copy.deepcopy(content)))
        self._changed.notify_all()


def _settle(made: Object) -> None:
    """What controllers would write when all has gone well."""
    spec, at = made.get("spec", {}), made["metadata"]["creationTimestamp"]
    generation = {"observedGeneration": made["metadata"]["generation"]}
    match made["kind"]:
        case "Deployment":
            replicas = spec.setdefault("replicas", 1)
            counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), replicas)
            reasons = {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
            conditions = [{"type": kind, "status": "True", "reason": reason} for kind, reason in reasons.items()]
            made["status"] = {**generation, **counts, "conditions": conditions}
        case "Pod":
            made.setdefault("status", {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "True"}]})
        case "Job":
            conditions = [{"type": "Complete", "status": "True"}]
            made["status"] = {"succeeded": 1, "startTime": at, "completionTime": at, "conditions": conditions}
        case "PersistentVolumeClaim":
            made["status"] = {"phase": "Bound"}
        case "PodDisruptionBudget":
            made["status"] = {**generation, "disruptionsAllowed": 1}
