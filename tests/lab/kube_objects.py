"""Objects as the chart and the controllers make them, short enough to draw a cluster with."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

Json = dict[str, Any]
NOW = datetime.now(UTC)


def ago(**time: float) -> str:
    return (NOW - timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")


def labels(component: str, group: str = "", release: str = "omni", version: str = "0.1.0") -> Json:
    found = {
        "app.kubernetes.io/name": "omni",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": version,
    }
    return {**found, "omni.dev/pipeline": "qwen3-omni", "omni.dev/placement-group": group} if group else found


def container(name: str, *, requests: Json | None = None, limits: Json | None = None, **more: Any) -> Json:
    resources = {"requests": requests or {}, "limits": limits or {}}
    return {"name": name, "image": f"omni-{name}:0.1.0", "resources": resources, **more}


def running(name: str, *, ready: bool = True, restarts: int = 0, last: Json | None = None, since: str = "") -> Json:
    state = {"running": {"startedAt": since or ago(minutes=30)}}
    return {"name": name, "ready": ready, "restartCount": restarts, "state": state, "lastState": last or {}}


def waiting(name: str, reason: str, message: str = "", *, restarts: int = 0, last: Json | None = None) -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": name, "ready": False, "restartCount": restarts, "state": state, "lastState": last or {}}


def terminated(code: int, reason: str = "Error", message: str = "", *, at: str = "") -> Json:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at or ago(minutes=2)}}


def pod(
    name: str,
    component: str = "stage",
    group: str = "",
    *,
    containers: list[Json] | None = None,
    init: list[Json] | None = None,
    statuses: list[Json] | None = None,
    init_statuses: list[Json] | None = None,
    ready: bool = True,
    phase: str = "Running",
    node: str = "node-a",
    unscheduled: str = "",
    volumes: list[Json] | None = None,
    age: str = "",
    meta: Json | None = None,
    generation: str = "aaa",
    version: str = "0.1.0",
) -> Json:
    """Running and ready, unless it is said otherwise."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if unscheduled:
        phase, node, conditions = (
            "Pending",
            "",
            [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unscheduled}],
        )
    containers = containers or [container(group or component)]
    found = statuses if statuses is not None else [running(c["name"]) for c in containers]
    return {
        "metadata": {
            "name": name,
            "namespace": "speech",
            "creationTimestamp": age or ago(hours=1),
            "labels": {**labels(component, group, version=version), "pod-template-hash": generation},
            "ownerReferences": [{"kind": "ReplicaSet", "name": name.rpartition("-")[0], "controller": True}],
            **(meta or {}),
        },
        "spec": {
            "nodeName": node,
            "containers": containers,
            "initContainers": init or [],
            "volumes": volumes or [],
        },
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [] if unscheduled else found,
            "initContainerStatuses": init_statuses or [],
        },
    }


def foreign_pod(name: str, node: str, **requests: str) -> Json:
    """Somebody else's, in another namespace."""
    named = {key.replace("gpu", "nvidia.com/gpu"): value for key, value in requests.items()}
    return {
        "metadata": {"name": name, "namespace": "others"},
        "spec": {"nodeName": node, "containers": [container("main", requests=named)]},
        "status": {"phase": "Running"},
    }


def node(name: str, *, gpus: int = 0, cpu: str = "8", memory: str = "32Gi", **conditions: str) -> Json:
    """`conditions`: Ready="False" and the like."""
    stated = {"Ready": "True", **conditions}
    return {
        "metadata": {"name": name},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})},
            "conditions": [
                {"type": kind, "status": status, "message": "Kubelet stopped posting node status."}
                for kind, status in stated.items()
            ],
        },
    }


def deployment(
    name: str,
    component: str = "stage",
    group: str = "",
    *,
    replicas: int = 1,
    updated: int | None = None,
    **status: Any,
) -> Json:
    found = labels(component, group)
    return {
        "metadata": {"name": name, "generation": 1, "labels": found},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": found}}},
        "status": {
            "observedGeneration": 1,
            "availableReplicas": replicas,
            "updatedReplicas": replicas if updated is None else updated,
            **status,
        },
    }


def replica_set(name: str, owner: str, *, wanted: int, there: int, failure: str = "") -> Json:
    conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure}]
    return {
        "metadata": {
            "name": name,
            "labels": labels("stage"),
            "ownerReferences": [{"kind": "Deployment", "name": owner, "controller": True}],
        },
        "spec": {"replicas": wanted},
        "status": {"replicas": there, "conditions": conditions if failure else []},
    }


def autoscaler(name: str, target: str, kind: str, status: str, reason: str, message: str = "") -> Json:
    """With one condition."""
    return {
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": target}, "maxReplicas": 4},
        "status": {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]},
    }


def event(kind: str, name: str, reason: str, message: str, *, at: str = "", container: str = "") -> Json:
    part = {"fieldPath": f"spec.containers{{{container}}}"} if container else {}
    return {
        "metadata": {"name": f"{name}.{reason}"},
        "involvedObject": {"kind": kind, "name": name, **part},
        "reason": reason,
        "message": message,
        "lastTimestamp": at or ago(minutes=1),
    }


def tls_secret(name: str, *, days: float) -> Json:
    """With a real certificate that is valid for so many days more; less than 0: not any more."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=400))
        .not_valid_after(NOW + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = base64.b64encode(made.public_bytes(Encoding.PEM)).decode()
    return {
        "metadata": {"name": name, "labels": labels("gateway")},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": pem},
    }
