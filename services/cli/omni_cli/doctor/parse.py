"""Pure: the API server's JSON as facts. What a server leaves out is what nothing is known of."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from omni_cli.cluster.pods import COMPONENT, GROUP, PIPELINE, labels_of
from omni_cli.doctor.facts import Amounts, Autoscaler, Container, Ended, Event, Node, Pod, ReplicaSet, Use, Workload
from omni_cli.doctor.quantities import parse_quantity

Json = Mapping[str, Any]
_VERSION = "app.kubernetes.io/version"
_HASH = "pod-template-hash"
_OVER = frozenset({"Succeeded", "Failed"})
_PART = re.compile(r"spec\.(initContainers|containers)\{(?P<name>[^}]*)\}")
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


def parse_pod(item: Json) -> Pod:
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    labels, conditions = labels_of(item), _conditions(status)
    scheduled = conditions.get("PodScheduled", {})
    return Pod(
        name=meta["name"],
        component=labels.get(COMPONENT, ""),
        group=labels.get(GROUP, ""),
        pipeline=labels.get(PIPELINE, ""),
        owner=_owner(meta),
        hash=labels.get(_HASH, ""),
        version=labels.get(_VERSION, ""),
        node=spec.get("nodeName") or "",
        phase=status.get("phase", ""),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        ready=conditions.get("Ready", {}).get("status") == "True",
        created=parse_time(meta.get("creationTimestamp")),
        deleted=parse_time(meta.get("deletionTimestamp")),
        unscheduled=scheduled.get("message") or "" if scheduled.get("status") == "False" else "",
        gated=scheduled.get("reason") == "SchedulingGated",
        requests=requests_of(spec),
        memory={
            v["name"]: parse_quantity((v["emptyDir"] or {}).get("sizeLimit", 0))
            for v in spec.get("volumes") or ()
            if (v.get("emptyDir") or {}).get("medium") == "Memory"
        },
        containers=tuple(_containers(spec, status)),
    )


def parse_use(item: Json) -> Use | None:
    """None for pods that hold nothing: they have ended, or have no node yet."""
    node = (item.get("spec") or {}).get("nodeName")
    if not node or (item.get("status") or {}).get("phase") in _OVER:
        return None
    meta = item["metadata"]
    return Use(f"{meta.get('namespace', '')}/{meta['name']}", node, requests_of(item["spec"]))


def requests_of(spec: Json) -> Amounts:
    """As the scheduler counts: all that run together, or the greediest of those that run before them."""
    together: defaultdict[str, float] = defaultdict(float)
    before: defaultdict[str, float] = defaultdict(float)
    for container in spec.get("initContainers") or ():
        for resource, amount in _requests(container).items():
            if container.get("restartPolicy") == "Always":
                together[resource] += amount
                before[resource] = max(before[resource], together[resource])
            else:
                before[resource] = max(before[resource], together[resource] + amount)
    for container in spec.get("containers") or ():
        for resource, amount in _requests(container).items():
            together[resource] += amount
    overhead = _amounts(spec.get("overhead"))
    names = {*together, *before, *overhead}
    return {name: max(together[name], before[name]) + overhead.get(name, 0.0) for name in sorted(names)}


def parse_node(item: Json) -> Node:
    status = item.get("status") or {}
    conditions = _conditions(status)
    ready = conditions.get("Ready", {})
    return Node(
        name=item["metadata"]["name"],
        ready=ready.get("status", "True") == "True",
        why_not=ready.get("message") or ready.get("reason") or "",
        pressures=tuple(name for name in _PRESSURES if conditions.get(name, {}).get("status") == "True"),
        allocatable=_amounts(status.get("allocatable")),
    )


def parse_workload(item: Json) -> Workload:
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    labels = labels_of(item)
    template = labels_of(spec.get("template") or {})
    progress = _conditions(status).get("Progressing", {})
    return Workload(
        name=meta["name"],
        what=template.get(GROUP) or labels.get(GROUP) or labels.get(COMPONENT) or meta["name"],
        wanted=int(spec.get("replicas", 1)),
        updated=int(status.get("updatedReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        seen=int(status.get("observedGeneration") or 0) >= int(meta.get("generation") or 0),
        stuck=progress.get("message", "") if progress.get("status") == "False" else "",
    )


def parse_replica_set(item: Json) -> ReplicaSet:
    status = item.get("status") or {}
    failure = _conditions(status).get("ReplicaFailure", {})
    return ReplicaSet(
        name=item["metadata"]["name"],
        owner=_owner(item["metadata"]),
        wanted=int((item.get("spec") or {}).get("replicas") or 0),
        there=int(status.get("replicas") or 0),
        failure=failure.get("message", "") if failure.get("status") == "True" else "",
    )


def parse_autoscaler(item: Json) -> Autoscaler:
    spec, conditions = item.get("spec") or {}, _conditions(item.get("status") or {})
    failing = (conditions.get(name, {}) for name in ("AbleToScale", "ScalingActive"))
    limited = conditions.get("ScalingLimited", {})
    at_most = limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas"
    return Autoscaler(
        name=item["metadata"]["name"],
        target=(spec.get("scaleTargetRef") or {}).get("name", ""),
        failing=next((c.get("message") or c.get("reason", "") for c in failing if c.get("status") == "False"), ""),
        most=int(spec.get("maxReplicas") or 0) if at_most else None,
    )


def parse_event(item: Json) -> Event:
    about = item.get("involvedObject") or item.get("regarding") or {}
    times = (item.get(name) for name in ("lastTimestamp", "eventTime", "firstTimestamp"))
    at = next((found for found in map(parse_time, times) if found), None)
    message = item.get("message") or item.get("note") or ""
    part = _PART.fullmatch(about.get("fieldPath") or "")
    container = part["name"] if part else ""
    return Event(about.get("kind", ""), about.get("name", ""), item.get("reason") or "", message, at, container)


def parse_time(text: object) -> datetime | None:
    """RFC 3339, with or without parts of a second."""
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def secrets_with_certificates(pods: Iterable[Json]) -> list[str]:
    """Those that pods mount at a volume for TLS."""
    volumes = (v for pod in pods for v in (pod.get("spec") or {}).get("volumes") or ())
    mounted = [(v.get("name", ""), s) for v in volumes for s in _secrets(v)]
    return sorted({name for volume, name in mounted if name and _speaks_of_tls(volume, name)})


def _secrets(volume: Json) -> Iterator[str]:
    yield (volume.get("secret") or {}).get("secretName", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield (source.get("secret") or {}).get("name", "")


def _speaks_of_tls(*names: str) -> bool:
    return any(part in name for name in names for part in ("tls", "https", "cert"))


def _containers(spec: Json, status: Json) -> Iterator[Container]:
    told = {
        s["name"]: s for s in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    }
    for container in spec.get("initContainers") or ():
        yield _container(container, told.get(container["name"], {}), once=container.get("restartPolicy") != "Always")
    for container in spec.get("containers") or ():
        yield _container(container, told.get(container["name"], {}), once=False)


def _container(container: Json, told: Json, *, once: bool) -> Container:
    state = told.get("state") or {}
    waiting, running = state.get("waiting") or {}, state.get("running") or {}
    return Container(
        name=container["name"],
        once=once,
        image=container.get("image", ""),
        ready=bool(told.get("ready")),
        since=parse_time(running.get("startedAt")),
        waiting=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        ended=_ended(state.get("terminated")),
        last=_ended((told.get("lastState") or {}).get("terminated")),
        restarts=int(told.get("restartCount") or 0),
        limits=_amounts((container.get("resources") or {}).get("limits")),
        mounts=frozenset(mount["name"] for mount in container.get("volumeMounts") or ()),
    )


def _ended(state: Json | None) -> Ended | None:
    if not state:
        return None
    at = parse_time(state.get("finishedAt"))
    return Ended(state.get("reason") or "", state.get("message") or "", int(state.get("exitCode") or 0), at)


def _requests(container: Json) -> Amounts:
    """A limit without a request is one."""
    resources = container.get("resources") or {}
    return {**_amounts(resources.get("limits")), **_amounts(resources.get("requests"))}


def _amounts(quantities: Json | None) -> dict[str, float]:
    return {name: parse_quantity(quantity) for name, quantity in (quantities or {}).items()}


def _conditions(status: Json) -> dict[str, Json]:
    return {condition["type"]: condition for condition in status.get("conditions") or ()}


def _owner(meta: Json) -> str:
    return next((str(owner["name"]) for owner in meta.get("ownerReferences") or () if owner.get("controller")), "")
