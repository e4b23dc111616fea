"""What the doctor's rules look at, from objects as `kube_objects` draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.lab.kube_objects import NOW, Json, node, pod

from omni_cli.doctor import parse
from omni_cli.doctor.facts import Facts
from omni_cli.doctor.findings import Finding
from omni_cli.doctor.rules import diagnose

NAME = "omni-thinker-1"


def thinker(**changes: Any) -> Json:
    return pod(NAME, "stage", "thinker", **changes)


def facts(*pods: Json, others: tuple[Json, ...] = (), **more: Any) -> Facts:
    """`others`: pods of somebody else's; what is in `more` stands in place of what is seen."""
    made = Facts(
        now=NOW,
        pods=[parse.parse_pod(item) for item in pods],
        nodes=[parse.parse_node(node("node-a"))],
        uses=[use for item in (*pods, *others) if (use := parse.parse_use(item))],
    )
    return replace(made, **{name: _parsed(name, value) for name, value in more.items()})


def _parsed(name: str, value: Any) -> Any:
    parsers: Mapping[str, Any] = {
        "nodes": parse.parse_node,
        "events": parse.parse_event,
        "autoscalers": parse.parse_autoscaler,
        "workloads": parse.parse_workload,
        "replica_sets": parse.parse_replica_set,
    }
    return [parsers[name](item) for item in value] if name in parsers and value is not None else value


def only(found: Facts) -> Finding:
    (finding,) = diagnose(found)
    return finding


def sentence(found: Facts) -> str:
    return only(found).sentence
