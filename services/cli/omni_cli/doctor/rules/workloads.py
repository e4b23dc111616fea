"""Deployments: pods that may not be made, updates that do not get on, generations side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from omni_cli.doctor.facts import Facts, ReplicaSet, Workload
from omni_cli.doctor.findings import Finding, Severity
from omni_cli.doctor.words import plain

# What a refusal says, and what it means.
_REFUSALS = (
    ("exceeded quota", "the namespace's quota is used up", "Raise the ResourceQuota, or ask for less."),
    (
        "violates PodSecurity",
        "the namespace's Pod Security level refuses them",
        "The chart's pods meet `restricted`: see which value (a security context, a volume) takes that away.",
    ),
    ("admission webhook", "an admission webhook refuses them", "Ask who runs the webhook."),
    (
        "must specify",
        "the namespace's quota wants every container to say what it needs",
        "Set `resources` for every container, or make a LimitRange.",
    ),
    ("maximum ", "the namespace's LimitRange refuses them", "Ask for less, or change the LimitRange."),
    ("serviceaccount", "their ServiceAccount is missing", "Make it, or set `serviceAccount.create`."),
)


def workloads(facts: Facts) -> Iterator[Finding]:
    for workload in facts.workloads:
        where = f"deployment {workload.name}"
        have = [pod for pod in facts.pods if pod.what == workload.what and not pod.deleted]
        if not workload.seen:
            yield Finding(
                Severity.WARNING, where, f"The change to {workload.what} has not been looked at by the controller yet."
            )
        if workload.wanted == 0:
            yield Finding(
                Severity.WARNING, where, f"{workload.what} is scaled to 0: requests that need it wait or are refused."
            )
        refused = _refused(workload, facts)
        if refused:
            yield Finding(Severity.WRONG, where, *refused)
        elif workload.wanted > len(have):
            yield Finding(
                Severity.WRONG, where, f"{workload.what} should have {_pods(workload.wanted)} and has {len(have)}."
            )
        if workload.stuck:
            yield Finding(
                Severity.WRONG,
                where,
                f"The update of {workload.what} does not get on: {plain(workload.stuck).rstrip('.')}.",
            )


def autoscalers(facts: Facts) -> Iterator[Finding]:
    """Also those that KEDA makes: they are known by what they scale."""
    ours = {workload.name: workload.what for workload in facts.workloads}
    for autoscaler in facts.autoscalers:
        what, where = ours.get(autoscaler.target), f"autoscaler {autoscaler.name}"
        if what is None:
            continue
        if autoscaler.failing:
            yield Finding(
                Severity.WARNING,
                where,
                f"The autoscaler of {what} cannot decide: {plain(autoscaler.failing).rstrip('.')}.",
                "See whether the metrics adapter, or KEDA's Prometheus, answers for its metrics.",
            )
        elif autoscaler.most is not None:
            yield Finding(
                Severity.WARNING,
                where,
                f"{what} has as many pods as its autoscaler may give it, {autoscaler.most}, and would have more.",
                "Raise `autoscaling.maxReplicas`, or see what slows it: `omni top`, `omni plan`.",
            )


def generations(facts: Facts) -> Iterator[Finding]:
    """Pods of two templates, or of two versions, that take work side by side."""
    living = [pod for pod in facts.pods if not pod.deleted and pod.phase == "Running"]
    for workload in facts.workloads:
        hashes = Counter(pod.hash for pod in living if pod.what == workload.what and pod.hash)
        if len(hashes) > 1:
            old = sum(hashes.values()) - min(workload.updated, sum(hashes.values()))
            yield Finding(
                Severity.WARNING,
                f"deployment {workload.name}",
                f"{workload.what} runs {len(hashes)} generations side by side: "
                f"{_pods(workload.updated)} of the new one, {old} of old ones.",
                "An update is under way; if it does not get on, see what is said of the new pods.",
            )
    versions: dict[str, list[str]] = {}
    for pod in living:
        if pod.version:
            versions.setdefault(pod.version, []).append(pod.what)
    if len(versions) > 1:
        told = "; ".join(f"{version}: {', '.join(sorted(set(who)))}" for version, who in sorted(versions.items()))
        yield Finding(
            Severity.WARNING,
            "release",
            f"Pods of {len(versions)} versions run side by side ({told}).",
            "Peers of neighbouring versions understand each other; finish the upgrade, or roll it back.",
        )


def _refused(workload: Workload, facts: Facts) -> tuple[str, str] | None:
    for made in facts.replica_sets:
        if made.owner != workload.name or made.there >= made.wanted:
            continue
        if said := _failure(made, facts):
            meaning, advice = next(
                ((ours, advice) for text, ours, advice in _REFUSALS if text in said), ("the cluster refuses them", "")
            )
            return f"{workload.what} gets no pods: {meaning} ({plain(said).rstrip('.')}).", advice
    return None


def _failure(made: ReplicaSet, facts: Facts) -> str:
    event = facts.event("ReplicaSet", made.name, "FailedCreate")
    return made.failure or (event.message if event else "")


def _pods(number: int) -> str:
    return "1 pod" if number == 1 else f"{number} pods"
