"""Asks the API server for all that the rules look at. What may not be seen is a sentence, and the rest goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
from cryptography import x509

from omni_cli.cluster.access import CannotReach, Cluster, NotGiven
from omni_cli.cluster.pages import Pages
from omni_cli.cluster.pods import COMPONENT, labels_of, metrics_ports, port_named, proxy_path, selector
from omni_cli.doctor import parse
from omni_cli.doctor.facts import Certificate, Container, Facts, Pod
from omni_cli.doctor.words import last_words

# All questions together; what has not come by then is not waited for.
_DEADLINE = 60.0
# What goes on to a node or a pod may meet one that is gone, or a NetworkPolicy.
_PATIENCE = 3.0
_TAIL = {"tailLines": "40", "limitBytes": "65536"}
# The last words of more containers would say the same.
_MOST_LOGS = 24
# A container that has run for less is only starting.
_STARTING = timedelta(seconds=20)
_TEST = "test"
Json = Mapping[str, Any]


class NoRelease(CannotReach):
    """The cluster answers, and there is nothing of that name in it."""


async def read_facts(cluster: Cluster, release: str) -> Facts:
    """Raises CannotReach."""
    reading = _Reading(cluster, release)
    with anyio.move_on_after(_DEADLINE) as scope:
        return await reading.everything()
    if scope.cancelled_caught:
        raise CannotReach(f"The API server at {cluster.host} did not answer everything in {_DEADLINE:g} s.")
    raise AssertionError("a scope ends by its body or its deadline")


class _Reading:
    """One look at a release."""

    def __init__(self, cluster: Cluster, release: str) -> None:
        self._cluster = cluster
        self._release = release
        self._here = f"namespaces/{cluster.namespace}"
        self._unseen: list[str] = []

    async def everything(self) -> Facts:
        objects = await self._objects()
        # `helm test` leaves a pod that is done, or has failed: no part of what serves.
        raw_pods = [pod for pod in objects["pods"] or () if labels_of(pod).get(COMPONENT) != _TEST]
        raw_workloads = objects["deployments"] or []
        if not raw_pods and not raw_workloads:
            raise NoRelease(
                f"There is no release {self._release} in the namespace {self._cluster.namespace} of "
                f"{self._cluster.host}. Say which: --namespace N --release R."
            )
        now = datetime.now(UTC)
        pods = [parse.parse_pod(item) for item in raw_pods]
        words = await self._words(pods, now)
        ports = [port for pod in raw_pods for port in metrics_ports(pod, self._cluster.namespace) if _runs(pod)]
        uses = objects["uses"]
        nodes = objects["nodes"]
        return Facts(
            now=now,
            pods=pods,
            workloads=[parse.parse_workload(item) for item in raw_workloads],
            replica_sets=[parse.parse_replica_set(item) for item in objects["replicasets"] or ()],
            autoscalers=[parse.parse_autoscaler(item) for item in objects["autoscalers"] or ()],
            events=[parse.parse_event(item) for item in objects["events"] or ()],
            nodes=None if nodes is None else [parse.parse_node(item) for item in nodes],
            uses=None if uses is None else [use for item in uses if (use := parse.parse_use(item))],
            certificates=await self._certificates(raw_pods),
            words=words,
            loading=await self._loading(raw_pods, pods),
            pages=await Pages(self._cluster).of(ports),
            unseen=self._unseen,
        )

    async def _objects(self) -> dict[str, list[Json] | None]:
        """Lists by what they are of; None of those that may not be seen."""
        ours = {"labelSelector": selector(self._release)}
        wanted: Mapping[str, tuple[str, Mapping[str, str], str]] = {
            "pods": (f"/api/v1/{self._here}/pods", ours, ""),
            "deployments": (f"/apis/apps/v1/{self._here}/deployments", ours, "deployments"),
            "replicasets": (f"/apis/apps/v1/{self._here}/replicasets", ours, "replicasets"),
            "autoscalers": (f"/apis/autoscaling/v2/{self._here}/horizontalpodautoscalers", {}, "autoscalers"),
            "events": (f"/api/v1/{self._here}/events", {}, "events"),
            "nodes": ("/api/v1/nodes", {}, "nodes"),
            "uses": ("/api/v1/pods", {}, "pods of all namespaces"),
        }
        found: dict[str, list[Json] | None] = {}

        async def ask(name: str) -> None:
            path, query, what = wanted[name]
            try:
                found[name] = await self._cluster.objects(path, **query)
            except NotGiven as refusal:
                if not what:
                    raise CannotReach(f"The pods of {self._cluster.namespace} may not be seen: {refusal}.") from None
                found[name] = None
                self._unseen.append(f"The {what} may not be seen, so that nothing is said of them: {refusal}.")

        await _all(ask, list(wanted))
        self._unseen.sort()
        return found

    async def _words(self, pods: Sequence[Pod], now: datetime) -> dict[tuple[str, str], str]:
        found: dict[tuple[str, str], str] = {}

        async def ask(of: tuple[Pod, Container, bool]) -> None:
            pod, container, previous = of
            query = {"container": container.name, **_TAIL, **({"previous": "true"} if previous else {})}
            try:
                log = await self._cluster.text(f"/api/v1/{self._here}/pods/{pod.name}/log", query, patience=_PATIENCE)
            except (CannotReach, NotGiven):  # its node is gone, or it is not for us: the rules do without
                return
            if words := last_words(log):
                found[pod.name, container.name] = words

        await _all(ask, list(_speakers(pods, now))[:_MOST_LOGS])
        return found

    async def _certificates(self, pods: Sequence[Json]) -> list[Certificate]:
        found: list[Certificate] = []

        async def ask(name: str) -> None:
            try:
                found.append(_certificate(name, await self._cluster.text(f"/api/v1/{self._here}/secrets/{name}")))
            except NotGiven as refusal:
                if refusal.status == 404:
                    found.append(Certificate(name, None, f"There is no Secret {name}, which pods mount."))
                else:
                    self._unseen.append(
                        f"The Secret {name} may not be read, so that nothing is said of when its certificate expires."
                    )

        await _all(ask, parse.secrets_with_certificates(pods))
        return sorted(found, key=lambda certificate: certificate.secret)

    async def _loading(self, raw_pods: Sequence[Json], pods: Sequence[Pod]) -> dict[str, list[str]]:
        """As the first gateway that answers knows it from the coordinators."""
        if all(pod.ready for pod in pods):
            return {}
        for raw in raw_pods:
            port = (
                port_named(raw, "https", "http") if labels_of(raw).get(COMPONENT) == "gateway" and _runs(raw) else None
            )
            if port is not None:
                path = proxy_path(self._cluster.namespace, raw["metadata"]["name"], port[1], "readyz", scheme=port[0])
                try:
                    return _steps(json.loads(await self._cluster.text(path, any_status=True, patience=_PATIENCE)), pods)
                except (
                    CannotReach,
                    NotGiven,
                    ValueError,
                    KeyError,
                    TypeError,
                ):  # another may know
                    continue
        return {}


def _steps(body: Json, pods: Sequence[Pod]) -> dict[str, list[str]]:
    """Of each pod's replicas that are not ready."""
    found: dict[str, list[str]] = {}
    for pipeline in body["pipelines"]:
        for stage in pipeline["stages"]:
            for replica in stage["replicas"]:
                pod = next((p.name for p in pods if str(replica["replica"]).startswith(f"{p.name}-")), "")
                if replica["phase"] != "ready":
                    found.setdefault(pod, []).append(_step(stage["stage"], replica))
    return found


def _step(stage: str, replica: Json) -> str:
    phase = str(replica["phase"]).replace("_", " ")
    if total := replica.get("tensors_total"):
        return f"{stage} is {phase}, {replica.get('tensors_loaded', 0)} of {total} tensors are there"
    return f"{stage} is {phase}"


def _speakers(pods: Sequence[Pod], now: datetime) -> Iterator[tuple[Pod, Container, bool]]:
    """Containers whose last words tell something, and whether they are those of the run before."""
    for pod in pods:
        for container in pod.containers:
            if container.ended is not None:
                if container.ended.exit_code:
                    yield pod, container, False
            elif container.last is not None and container.last.exit_code:
                yield pod, container, True
            elif container.since and now - container.since > _STARTING and not container.ready and not pod.ready:
                yield pod, container, False


def _certificate(name: str, text: str) -> Certificate:
    """The one that ends first, of those in the Secret."""
    data = json.loads(text).get("data") or {}
    pem = b"".join(base64.b64decode(data[key]) + b"\n" for key in ("tls.crt", "ca.crt") if data.get(key))
    try:
        ends = [certificate.not_valid_after_utc for certificate in x509.load_pem_x509_certificates(pem)]
    except ValueError:
        return Certificate(name, None, f"The Secret {name} holds no certificate that can be read." if data else "")
    return Certificate(name, min(ends))


def _runs(pod: Json) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Running")


async def _all(ask: Callable[[Any], Coroutine[Any, Any, None]], of: Sequence[Any]) -> None:
    """The cluster bounds how many are asked at once."""
    async with anyio.create_task_group() as asking:
        for one in of:
            asking.start_soon(ask, one)
