"""What a release stands on: nodes, certificates; and what may not be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from omni_cli.doctor.facts import Facts
from omni_cli.doctor.findings import Finding, Severity, age_text
from omni_cli.doctor.words import plain

# cert-manager renews with a third of the life left, which for 90 days is 30: past this, nobody does.
_SOON = timedelta(days=14)


def nodes(facts: Facts) -> Iterator[Finding]:
    """Of those that run pods of the release."""
    ours = {pod.node for pod in facts.pods if pod.node and not pod.deleted}
    for node in facts.nodes or ():
        if node.name not in ours:
            continue
        who = sorted({pod.what for pod in facts.pods if pod.node == node.name})
        if not node.ready:
            why = plain(node.why_not).rstrip(".") or "it does not say why"
            yield Finding(
                Severity.WRONG,
                f"node {node.name}",
                f"Node {node.name}, which runs {', '.join(who)}, is not ready: {why}.",
                "Its pods are made elsewhere after some minutes, where there is room.",
            )
        for pressure in node.pressures:
            yield Finding(
                Severity.WARNING,
                f"node {node.name}",
                f"Node {node.name}, which runs {', '.join(who)}, has {pressure}: the kubelet may throw pods out.",
            )


def certificates(facts: Facts) -> Iterator[Finding]:
    for certificate in facts.certificates:
        where = f"secret {certificate.secret}"
        if certificate.problem:
            yield Finding(Severity.WRONG, where, certificate.problem)
        elif certificate.expires is not None:
            left = certificate.expires - facts.now
            if left <= timedelta(0):
                yield Finding(
                    Severity.WRONG,
                    where,
                    f"The certificate in {certificate.secret} expired {age_text(-left)} ago: handshakes are refused.",
                    _RENEW,
                )
            elif left < _SOON:
                yield Finding(
                    Severity.WARNING,
                    where,
                    f"The certificate in {certificate.secret} expires in {age_text(left)}.",
                    _RENEW,
                )


_RENEW = "Renew it (`helm upgrade` for the chart's own); processes take the new one without a restart."


def unseen(facts: Facts) -> Iterator[Finding]:
    for sentence in facts.unseen:
        yield Finding(Severity.WARNING, "cluster", sentence)
