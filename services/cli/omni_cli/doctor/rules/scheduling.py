"""Pods that no node takes: what they wait for, and who has it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta

from omni_cli.doctor.facts import Facts, Node, Pod
from omni_cli.doctor.findings import Finding, Severity
from omni_cli.doctor.quantities import amount_text
from omni_cli.doctor.words import plain

_INSUFFICIENT = re.compile(r"Insufficient ([A-Za-z0-9./_-]+?)(?=[,.]?(?:\s|$))")
_TAINT = re.compile(r"(\d+) node\(s\) had untolerated taints? \{([^}]*)\}")
_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
# A scheduler that has not looked at a pod by then is not there.
_SCHEDULER = timedelta(seconds=30)
# Who holds what is waited for; more names do not help.
_HOLDERS = 6

# What else the scheduler says, in our words; the number of nodes stands before it.
_OTHERS = (
    (
        "didn't match Pod's node affinity/selector",
        "do not match its node selector or affinity",
        "nodeSelector, affinity",
    ),
    (
        "didn't match pod topology spread constraints",
        "are ruled out by its topology spread",
        "topologySpreadConstraints",
    ),
    ("didn't match pod anti-affinity rules", "are ruled out by its anti-affinity", "affinity"),
    ("didn't match pod affinity rules", "do not run the pods that it wants beside it", "affinity"),
    ("were unschedulable", "are cordoned", ""),
    ("had volume node affinity conflict", "cannot reach its volume", ""),
    ("cannot allocate all claims", "cannot give what its resource claims ask for", "gpu"),
)


def scheduling(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        if pod.phase == "Pending" and not pod.node and not pod.deleted:
            yield from _pending(pod, facts)


def _pending(pod: Pod, facts: Facts) -> Iterator[Finding]:
    if pod.gated:
        sentence, advice = (
            f"{pod.what} is held back by a scheduling gate.",
            "See what put it on the pod: a queue, most often.",
        )
    elif not pod.unscheduled:
        if facts.age(pod.created) < _SCHEDULER:
            return
        sentence, advice = (
            f"No scheduler has looked at {pod.what}.",
            "See whether kube-scheduler, or the pod's own, runs.",
        )
    else:
        sentence, advice = _waits(pod, facts)
    yield Finding(Severity.WRONG, f"pod {pod.name}", sentence, advice)


def _waits(pod: Pod, facts: Facts) -> tuple[str, str]:
    """What is short, and which nodes are ruled out for other reasons."""
    # What stands after "preemption:" says the same again.
    message = pod.unscheduled.partition("preemption:")[0]
    short = [_short(pod, resource, facts) for resource in dict.fromkeys(_INSUFFICIENT.findall(message))]
    short += [(volume, "") for volume in _volumes(message, facts)]
    others = [*_ruled_out(message)]
    advice = " ".join(dict.fromkeys(hint for _, hint in (*short, *others) if hint))
    wants, rules = "; ".join(clause for clause, _ in short), "; ".join(clause for clause, _ in others)
    if wants:
        return f"{pod.what} waits for {wants}.{f' Besides, {rules}.' if rules else ''}", advice
    return f"No node takes {pod.what}: {rules or plain(message).rstrip('.')}.", advice


def _ruled_out(message: str) -> Iterator[tuple[str, str]]:
    for number, taint in _TAINT.findall(message):
        yield (
            f"{_nodes(int(number))} the taint {taint.strip() or 'that it names'}, which it does not tolerate",
            "Add the toleration to the placement group's `tolerations`, if it may run there.",
        )
    for said, ours, value in _OTHERS:
        if found := re.search(rf"(\d+) node\(s\) {re.escape(said)}|{re.escape(said)}", message):
            number = f"{found[1]} of the nodes" if found[1] else "nodes"
            yield f"{number} {ours}", f"See `{value}` of the placement group." if value else ""


def _nodes(number: int) -> str:
    return "1 node has" if number == 1 else f"{number} nodes have"


def _volumes(message: str, facts: Facts) -> Iterator[str]:
    for claim in _CLAIM.findall(message):
        yield f"the volume claim {claim}, which there is not"
    if "unbound immediate PersistentVolumeClaims" in message:
        failed = [e for e in facts.events if e.kind == "PersistentVolumeClaim" and e.reason == "ProvisioningFailed"]
        yield f"a volume that nothing provides{f': {plain(failed[-1].message)}' if failed else ''}"


def _short(pod: Pod, resource: str, facts: Facts) -> tuple[str, str]:
    """`1 × nvidia.com/gpu; 2 nodes have it, all in use by a and b`, and what to do."""
    wanted = pod.requests.get(resource, 0.0)
    what = amount_text(resource, wanted) if wanted else resource
    if facts.nodes is None:
        return f"{what}; which nodes have it may not be seen", ""
    having = [node for node in facts.nodes if node.allocatable.get(resource, 0.0) > 0]
    if not having:
        return f"{what}, and no node has it", _none(resource)
    largest = max(node.allocatable[resource] for node in having)
    number = _nodes(len(having))
    if largest < wanted:
        return f"{what}; {number} it, with {amount_text(resource, largest)} at most", (
            f"Ask for less: no node can ever give {what}."
        )
    if facts.uses is None:
        return f"{what}; {number} it, and who uses it may not be seen", ""
    if "/" in resource:
        return f"{what}; {number} it, {_holders(resource, having, facts)}", (
            "Free one, add a node, or lower the replicas of what holds them."
        )
    node, left = _most_left(resource, having, facts)
    return f"{what}; most is left on {node.name}: {amount_text(resource, left)} of {_total(resource, node)}", (
        f"Lower `resources.requests.{resource}`, add a node, or make room."
    )


def _none(resource: str) -> str:
    if resource == "nvidia.com/gpu":
        return "Add a node with a GPU and NVIDIA's device plugin, or serve on CPUs: leave out values-gpu.yaml."
    return f"Add a node that has {resource}, or do not ask for it."


def _total(resource: str, node: Node) -> str:
    return amount_text(resource, node.allocatable[resource])


def _holders(resource: str, having: Sequence[Node], facts: Facts) -> str:
    names = {node.name for node in having}
    held = {u.pod: u.requests[resource] for u in facts.uses or () if u.node in names and u.requests.get(resource)}
    if not held:
        return "and none is in use: something else keeps it from them"
    left = sum(node.allocatable[resource] for node in having) - sum(held.values())
    by = [f"{pod} ({amount:g})" if amount > 1 else pod for pod, amount in sorted(held.items())]
    more = len(by) - _HOLDERS
    shown = ", ".join(by[:_HOLDERS]) + (f" and {more} more" if more > 0 else "")
    return f"all in use by {shown}" if left <= 0 else f"{left:g} of it left, the rest in use by {shown}"


def _most_left(resource: str, having: Sequence[Node], facts: Facts) -> tuple[Node, float]:
    used: defaultdict[str, float] = defaultdict(float)
    for use in facts.uses or ():
        used[use.node] += use.requests.get(resource, 0.0)
    node = max(having, key=lambda n: n.allocatable[resource] - used[n.name])
    return node, max(0.0, node.allocatable[resource] - used[node.name])
