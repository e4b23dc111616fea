"""Pods that run and are not ready, were thrown out, or do not go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from omni_cli.doctor.facts import Container, Facts, Pod
from omni_cli.doctor.findings import Finding, Severity, age_text
from omni_cli.doctor.rules.containers import is_weights, why_it_could_not
from omni_cli.doctor.words import plain

# So long a process may take to start before somebody should know; loading weights takes longer, and is told as well.
_START = timedelta(minutes=1)
# Past its grace, which is in the time of deletion, a pod should be gone.
_GONE = timedelta(minutes=1)
# Weights of tens of gigabytes may come so slowly and be well.
_SLOW = timedelta(minutes=10)


def pods(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        if pod.deleted:
            if facts.age(pod.deleted) > _GONE:
                yield _finding(pod, _lingers(pod, facts), Severity.WARNING)
        elif pod.phase == "Failed":
            why = plain(pod.message) or pod.reason or "nobody says why"
            yield _finding(pod, f"{pod.what} was ended{_by(pod)}: {why.rstrip('.')}.", Severity.WARNING)
        elif pod.phase == "Running" and not pod.ready and not _told_elsewhere(pod):
            yield _unready(pod, facts)
        elif pod.phase == "Pending" and pod.node and _waits_for_first(pod, facts):
            yield _first_step(pod, facts)


def _by(pod: Pod) -> str:
    return " by its node (evicted)" if pod.reason == "Evicted" else ""


def _told_elsewhere(pod: Pod) -> bool:
    """A container that crashes, or cannot start, is why."""
    return any(
        c.waiting not in {"", "PodInitializing", "ContainerCreating"} or (c.ended and c.ended.exit_code)
        for c in pod.containers
    )


def _unready(pod: Pod, facts: Facts) -> Finding:
    age = facts.age(pod.created)
    if cannot := list(dict.fromkeys(_refusals(pod, facts))):
        return _finding(pod, f"{pod.what} is not ready since {age_text(age)}: {' '.join(cannot)}", Severity.WRONG)
    if steps := facts.loading.get(pod.name):
        why = ", ".join(steps)
    elif event := facts.event("Pod", pod.name, "Unhealthy"):
        why = plain(event.message)
    else:
        why = "its probe has not said that it is"
    words = [f' {c.name} said last: "{w}"' for c in pod.containers if not c.ready and (w := _words(pod, c, facts))]
    severity = Severity.WARNING if age < _START else Severity.WRONG
    sentence = f"{pod.what} is not ready since {age_text(age)}: {why.rstrip('.')}.{''.join(words)}"
    return _finding(pod, sentence, severity)


def _refusals(pod: Pod, facts: Facts) -> Iterator[str]:
    """Of processes that cannot start, and stay only to say so. What was said by the run before is no longer true."""
    for container in pod.containers:
        event = facts.event("Pod", pod.name, "Unhealthy", container=container.name)
        why = why_it_could_not(pod, container, facts)
        if why and event and not container.ready and facts.age(event.at) <= facts.age(container.since or event.at):
            yield f"{why.rstrip('.')}."


def _words(pod: Pod, container: Container, facts: Facts) -> str:
    return facts.words.get((pod.name, container.name), "")


def _waits_for_first(pod: Pod, facts: Facts) -> bool:
    """Its init containers take long; those that fail are told elsewhere."""
    return facts.age(pod.created) >= _START and not _told_elsewhere(pod) and _running_step(pod) is not None


def _running_step(pod: Pod) -> Container | None:
    return next((c for c in pod.containers if c.once and c.since and not c.ended), None)


def _first_step(pod: Pod, facts: Facts) -> Finding:
    step = _running_step(pod)
    if step is None:
        raise AssertionError("asked for a step of a pod that has none")
    words = _words(pod, step, facts)
    told = f', which says: "{words}"' if words else ""
    does = "gets its weights" if is_weights(step) else f"runs its step {step.name}"
    slow = is_weights(step) and facts.age(step.since) >= _SLOW
    return Finding(
        Severity.WRONG,
        f"pod {pod.name}",
        f"{pod.what} is not ready: it {does} since {age_text(facts.age(step.since))}{told}.",
        "If that does not move, see whether its node and its NetworkPolicy let it reach the hub or the volume."
        if slow
        else "",
    )


def _lingers(pod: Pod, facts: Facts) -> str:
    return f"{pod.what} should be gone since {age_text(facts.age(pod.deleted))}, and its node still has it."


def _finding(pod: Pod, sentence: str, severity: Severity) -> Finding:
    return Finding(severity, f"pod {pod.name}", sentence)
