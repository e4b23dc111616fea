"""The command itself: looks, and says what it found."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omni_cli.cluster.access import Where, open_cluster
from omni_cli.doctor.facts import Facts
from omni_cli.doctor.findings import Finding, Severity
from omni_cli.doctor.read import read_facts
from omni_cli.doctor.rules import diagnose

_MARKS = {Severity.WRONG: "✗", Severity.WARNING: "!"}


async def doctor(where: Where) -> bool:
    """Whether all is well. Raises CannotReach."""
    async with open_cluster(where) as cluster:
        facts = await read_facts(cluster, where.release)
        findings = diagnose(facts)
        print(f"Release {where.release} in namespace {cluster.namespace} of {cluster.host}: {summary(facts)}")
    print(report(findings))
    sys.stdout.flush()
    return all(finding.severity is not Severity.WRONG for finding in findings)


def summary(facts: Facts) -> str:
    ready = sum(pod.ready for pod in facts.pods)
    answering = sum(page is not None for page in facts.pages.values())
    nodes = f", {len(facts.nodes)} nodes" if facts.nodes is not None else ""
    return (
        f"{ready} of {len(facts.pods)} pods ready, {len(facts.workloads)} deployments{nodes}; "
        f"{answering} of {len(facts.pages)} processes reached for their metrics."
    )


def report(findings: Sequence[Finding]) -> str:
    """Each finding a line, its advice below it; and in the end, in one sentence, how it stands."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.severity]} {finding.sentence} [{finding.object}]")
        if finding.advice:
            lines.append(f"  → {finding.advice}")
    wrong = sum(finding.severity is Severity.WRONG for finding in findings)
    lines.append(_verdict(wrong, len(findings) - wrong))
    return "\n".join(lines)


def _verdict(wrong: int, warnings: int) -> str:
    if wrong:
        return "1 thing is wrong." if wrong == 1 else f"{wrong} things are wrong."
    if warnings:
        return "Nothing is wrong; see above what to look at."
    return "Nothing is wrong."
