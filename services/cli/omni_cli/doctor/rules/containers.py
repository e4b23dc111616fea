"""Containers that end: killed for their memory, weights that do not come, processes that crash."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from omni_cli.doctor.facts import Container, Ended, Facts, Pod
from omni_cli.doctor.findings import Finding, Severity
from omni_cli.doctor.quantities import amount_text
from omni_cli.doctor.words import last_words, plain, why_it_cannot

# What was killed longer ago, and has run since, is history.
_RECENT = timedelta(hours=1)
_KILLED = 137
_ARENA = "arena"
_BACK_OFF = "CrashLoopBackOff"


def containers(facts: Facts) -> Iterator[Finding]:
    """Of pods that are to stay: one that is told to go ends its processes; one that was thrown out has lost them."""
    for pod in facts.pods:
        if not pod.deleted and pod.phase in {"Running", "Pending"}:
            for container in pod.containers:
                yield from _container(pod, container, facts)


def is_weights(container: Container) -> bool:
    return container.once and "weight" in container.name


def _container(pod: Pod, container: Container, facts: Facts) -> Iterator[Finding]:
    ended = _failure(container)
    if ended is None:
        return
    down = not container.ready and not (container.since and not container.once and pod.ready)
    if not down and facts.age(ended.at) > _RECENT:
        return
    severity = Severity.WRONG if down else Severity.WARNING
    sentence, advice = _memory(pod, container) if ended.reason == "OOMKilled" else _crash(pod, container, ended, facts)
    yield Finding(severity, f"pod {pod.name}", sentence, advice)


def _failure(container: Container) -> Ended | None:
    """The end that matters: of now, or of the run before."""
    if container.ended is not None:
        return container.ended if container.ended.exit_code else None
    if container.last is not None and (container.waiting == _BACK_OFF or container.restarts):
        return container.last if container.last.exit_code or not container.once else None
    return None


def _memory(pod: Pod, container: Container) -> tuple[str, str]:
    """Pages of a volume in memory count for the container that touches them first."""
    limit = container.limits.get("memory")
    parts = [f"{pod.what}'s container {container.name} was killed for its memory"]
    parts.append(
        f"its limit is {amount_text('memory', limit)}" if limit else "it has no limit, so the node had none left"
    )
    arena = pod.memory.get(_ARENA, 0.0) if _ARENA in container.mounts else 0.0
    advice = f"Raise `resources.limits.memory` of {container.name}."
    if arena and limit:
        parts.append(f"of which the arena, a volume in memory, may take {amount_text('memory', arena)}")
        advice = f"{advice[:-1]}, or lower `relay.arenaSize` of {pod.what}."
    again = f" {_times(container)}." if container.restarts > 1 else ""
    return f"{parts[0]}; {', '.join(parts[1:])}.{again}", advice


def _crash(pod: Pod, container: Container, ended: Ended, facts: Facts) -> tuple[str, str]:
    words = (
        last_words(ended.message)
        or facts.words.get((pod.name, container.name), "")
        or why_it_could_not(pod, container, facts)
    )
    who = "the step that gets its weights" if is_weights(container) else f"its container {container.name}"
    times = _times(container)
    told = f'It said last: "{words}"' if words else "It left no last words."
    how = f"code {ended.exit_code}"
    if ended.exit_code == _KILLED:
        how = "SIGKILL: its liveness probe, the node's memory, or a person"
        if event := facts.event("Pod", pod.name, "Unhealthy", "Killing"):
            told = f"{told} The kubelet said: {plain(event.message).rstrip('.')}."
    return f"{pod.what} fails: {who} ended with {how}. {times}. {told}".replace("..", "."), ""


def why_it_could_not(pod: Pod, container: Container, facts: Facts) -> str:
    """As the kubelet heard it from the process itself, and made it an event."""
    event = facts.event("Pod", pod.name, "Unhealthy", container=container.name)
    return why_it_cannot(event.message) if event else ""


def _times(container: Container) -> str:
    return (
        f"It was started again {container.restarts} times" if container.restarts != 1 else "It was started again once"
    )
