"""What the cluster says of a release, as far as the rules look at it. None stands for what may not be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from omni_cli.top.exposition import Page

Amounts = Mapping[str, float]
"""Of resources by name: CPUs, bytes of memory, devices."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container's process ended."""

    reason: str
    message: str
    exit_code: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Container:
    """`waiting` is why it does not run, with `waiting_message`; `ended` is its state now, `last` that of the run before
    this one. `once`: an init container that has to end before the others start."""

    name: str
    once: bool
    image: str
    ready: bool = False
    since: datetime | None = None
    waiting: str = ""
    waiting_message: str = ""
    ended: Ended | None = None
    last: Ended | None = None
    restarts: int = 0
    limits: Amounts = field(default_factory=dict)
    mounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pod:
    """`requests` is what a node must have left for it. `unscheduled` is what the scheduler says, `memory` the sizes of
    its volumes in memory, `hash` its generation."""

    name: str
    component: str
    group: str = ""
    pipeline: str = ""
    owner: str = ""
    hash: str = ""
    version: str = ""
    node: str = ""
    phase: str = "Running"
    reason: str = ""
    message: str = ""
    ready: bool = False
    created: datetime | None = None
    deleted: datetime | None = None
    unscheduled: str = ""
    gated: bool = False
    requests: Amounts = field(default_factory=dict)
    memory: Amounts = field(default_factory=dict)
    containers: Sequence[Container] = ()

    @property
    def what(self) -> str:
        """As its user knows it: a placement group, or a component."""
        return self.group or self.component or self.name


@dataclass(frozen=True, slots=True)
class Use:
    """A pod of anybody's, on a node, and what is set aside for it."""

    pod: str
    node: str
    requests: Amounts


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    ready: bool = True
    why_not: str = ""
    pressures: tuple[str, ...] = ()
    allocatable: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment. `stuck` is what it says when an update makes no progress."""

    name: str
    what: str
    wanted: int
    updated: int
    available: int
    seen: bool = True
    stuck: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """`failure`: why it cannot make pods."""

    name: str
    owner: str
    wanted: int
    there: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """Of a Deployment. `failing`: why it cannot decide or act; `most`: its bound, when it would go beyond it."""

    name: str
    target: str
    failing: str = ""
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """The newest of its kind about an object. `container`: of a pod's, where it is about one."""

    kind: str
    name: str
    reason: str
    message: str
    at: datetime | None
    container: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`problem`: why nothing is known of it."""

    secret: str
    expires: datetime | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """`words`: the last that a container (pod, name) said. `loading`: how far a replica's pod is, as the gateway knows
    it. `pages`: of metrics, by "pod/container"; None of those that do not answer. `unseen`: sentences."""

    now: datetime
    pods: Sequence[Pod] = ()
    workloads: Sequence[Workload] = ()
    replica_sets: Sequence[ReplicaSet] = ()
    autoscalers: Sequence[Autoscaler] = ()
    events: Sequence[Event] = ()
    nodes: Sequence[Node] | None = None
    uses: Sequence[Use] | None = None
    certificates: Sequence[Certificate] = ()
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)
    loading: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pages: Mapping[str, Page | None] = field(default_factory=dict)
    unseen: Sequence[str] = ()

    def age(self, moment: datetime | None) -> timedelta:
        return self.now - moment if moment else timedelta(0)

    def event(self, kind: str, name: str, *reasons: str, container: str = "") -> Event | None:
        """The newest about the object with one of these reasons; about this container, or the pod, where one is
        named."""
        about = [e for e in self.events if e.kind == kind and e.name == name and e.reason in reasons]
        found = [e for e in about if not container or e.container in {"", container}]
        return max(found, key=lambda event: event.at or datetime.min.replace(tzinfo=self.now.tzinfo), default=None)
