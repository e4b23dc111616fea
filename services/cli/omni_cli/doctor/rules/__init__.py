"""The rules, each from facts to findings, and all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from omni_cli.doctor.facts import Facts
from omni_cli.doctor.findings import Finding, merged
from omni_cli.doctor.rules.containers import containers
from omni_cli.doctor.rules.images import images
from omni_cli.doctor.rules.mesh import mesh
from omni_cli.doctor.rules.pods import pods
from omni_cli.doctor.rules.scheduling import scheduling
from omni_cli.doctor.rules.surroundings import certificates, nodes, unseen
from omni_cli.doctor.rules.workloads import autoscalers, generations, workloads

RULES: Sequence[Callable[[Facts], Iterable[Finding]]] = (
    workloads,
    scheduling,
    images,
    containers,
    pods,
    mesh,
    nodes,
    certificates,
    autoscalers,
    generations,
    unseen,
)


def diagnose(facts: Facts) -> list[Finding]:
    """The worst first."""
    return merged(finding for rule in RULES for finding in rule(facts))
