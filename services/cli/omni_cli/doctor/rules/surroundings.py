"""What a release stands on: nodes, certificates; and what may not be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from omni_cli.doctor.facts import Facts
from omni_cli.doctor.findings import Finding, Severity, age_text
from omni_cli.doctor.words import plain
from omni_common.telemetry import names

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
    """By their Secrets; what processes tell of those in use counts where no Secret may be read."""
    for certificate in facts.certificates:
        where = f"secret {certificate.secret}"
        if certificate.problem:
            yield Finding(Severity.WRONG, where, certificate.problem)
        elif certificate.expires is not None:
            yield from _expiry(f"The certificate in {certificate.secret}", where, certificate.expires, facts)
    if not facts.certificates:
        for name, page in facts.pages.items():
            for labels, ends in page.of(names.CERTIFICATE_EXPIRY) if page else ():
                if ends:
                    which = f"The certificate for {labels['certificate']} that {name} uses"
                    yield from _expiry(which, f"process {name}", datetime.fromtimestamp(ends, UTC), facts)


def _expiry(which: str, where: str, expires: datetime, facts: Facts) -> Iterator[Finding]:
    left = expires - facts.now
    if left <= timedelta(0):
        expired = f"{which} expired {age_text(-left)} ago: handshakes are refused."
        yield Finding(Severity.WRONG, where, expired, _RENEW)
    elif left < _SOON:
        yield Finding(Severity.WARNING, where, f"{which} expires in {age_text(left)}.", _RENEW)


_RENEW = "Renew it (`helm upgrade` for the chart's own); processes take the new one without a restart."


def unseen(facts: Facts) -> Iterator[Finding]:
    for sentence in facts.unseen:
        yield Finding(Severity.WARNING, "cluster", sentence)
