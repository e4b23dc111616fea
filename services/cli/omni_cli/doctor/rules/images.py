"""Images that a node cannot get, and containers that it cannot make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from omni_cli.doctor.facts import Container, Facts, Pod
from omni_cli.doctor.findings import Finding, Severity, age_text
from omni_cli.doctor.words import plain

_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_MAKE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_BEGIN = frozenset({"ContainerCreating", "PodInitializing"})
_STUCK = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
# Volumes of a pod that has just begun are often a moment late.
_PATIENCE = timedelta(seconds=30)
_ADVICE = (
    (
        re.compile(r"unauthori[sz]ed|denied|forbidden|authentication|\b401\b|\b403\b", re.I),
        "Log in to the registry: `imagePullSecrets`.",
    ),
    (
        re.compile(r"no such host|timeout|timed out|refused|unreachable", re.I),
        "The node does not reach the registry: see `image.registry`, proxies and DNS.",
    ),
    (
        re.compile(r"not found|manifest unknown|no matching manifest", re.I),
        "See the image's name and tag, and whether it was pushed for the node's architecture.",
    ),
    (re.compile(r"never", re.I), "The image must be on the node already: load it there, or change `image.pullPolicy`."),
)


def images(facts: Facts) -> Iterator[Finding]:
    for pod in (pod for pod in facts.pods if not pod.deleted):
        for container in pod.containers:
            if container.waiting in _PULL:
                yield _pull(pod, container, facts)
            elif container.waiting in _MAKE:
                said = plain(container.waiting_message) or container.waiting
                yield Finding(
                    Severity.WRONG,
                    f"pod {pod.name}",
                    f"{pod.what} cannot start its container {container.name}: {said}.",
                    "A Secret, a ConfigMap or a key in it is missing, most often: make it, or correct its name."
                    if "not found" in said
                    else "",
                )
        yield from _begins(pod, facts)


def _pull(pod: Pod, container: Container, facts: Facts) -> Finding:
    event = facts.event("Pod", pod.name, "Failed", "InspectFailed")
    said = max((container.waiting_message, event.message if event else ""), key=_tells)
    why = plain(said) or container.waiting
    advice = next((advice for pattern, advice in _ADVICE if pattern.search(why)), "")
    return Finding(
        Severity.WRONG,
        f"pod {pod.name}",
        f"{pod.what} cannot get the image {container.image}: {why.rstrip('.')}.",
        advice,
    )


def _tells(message: str) -> tuple[bool, int]:
    """That the kubelet waits before it tries again is no reason."""
    return (bool(message) and not message.startswith("Back-off")) or "ErrImagePull" in message, len(message)


def _begins(pod: Pod, facts: Facts) -> Iterator[Finding]:
    if not any(c.waiting in _BEGIN for c in pod.containers) or facts.age(pod.created) < _PATIENCE:
        return
    if event := facts.event("Pod", pod.name, *_STUCK):
        yield Finding(
            Severity.WRONG,
            f"pod {pod.name}",
            f"{pod.what} cannot begin since {age_text(facts.age(pod.created))}: {plain(event.message).rstrip('.')}.",
            "Make the Secret or ConfigMap that it names, or correct its name." if "not found" in event.message else "",
        )
