"""What the processes tell of themselves by their metrics, where these are reached."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from omni_cli.doctor.facts import Facts, Pod
from omni_cli.doctor.findings import Finding, Severity
from omni_cli.top.exposition import Page
from omni_common.telemetry import names


def mesh(facts: Facts) -> Iterator[Finding]:
    yield from _silent(facts)
    yield from _unknown_to_coordinators(facts)
    for name, page in facts.pages.items():
        if page is not None:
            yield from _troubles(name, page)


def _silent(facts: Facts) -> Iterator[Finding]:
    ready = {pod.name for pod in facts.pods if pod.ready}
    mute = [name for name, page in facts.pages.items() if page is None and name.partition("/")[0] in ready]
    if mute and len(mute) == len([name for name in facts.pages if name.partition("/")[0] in ready]):
        yield Finding(
            Severity.WARNING,
            "metrics",
            "No process is reached for its metrics through the API server, so that they are not looked at.",
            "It needs the right to `get` `pods/proxy`, where NetworkPolicies let the API server in, or to `create` and "
            "`get` `pods/portforward`.",
        )
        return
    for name in mute:
        yield Finding(Severity.WARNING, f"process {name}", f"{name} is ready and does not answer for its metrics.")


def _unknown_to_coordinators(facts: Facts) -> Iterator[Finding]:
    """Pods that say that they are ready, and a coordinator that has never heard of them."""
    known: defaultdict[tuple[str, str], float] = defaultdict(float)
    for page in facts.pages.values():
        for labels, value in page.of(names.READY_REPLICAS) if page else ():
            known[labels["pipeline"], labels["stage"]] += value
    for (pipeline, stage), replicas in sorted(known.items()):
        pods = [pod for pod in _running(facts, stage) if pod.pipeline == pipeline]
        if not replicas and pods:
            yield Finding(
                Severity.WRONG,
                f"stage {pipeline}/{stage}",
                f"{pods[0].what} is ready, but no coordinator knows a replica of its stage {stage}.",
                "They do not reach each other: see certificates, NetworkPolicies and the stage's log.",
            )


def _running(facts: Facts, stage: str) -> Iterator[Pod]:
    for name, page in facts.pages.items():
        if page and any(labels["stage"] == stage for labels, _ in page.of(names.STAGE_LIVE_REQUESTS)):
            yield from (pod for pod in facts.pods if pod.name == name.partition("/")[0] and pod.ready)


def _troubles(name: str, page: Page) -> Iterator[Finding]:
    for labels, value in page.of(names.RELAY_REFUSED_PEERS):
        if value:
            yield Finding(
                Severity.WARNING,
                f"process {name}",
                f"{name} has refused {value:.0f} connections of other relays: {labels.get('reason', 'unknown')}.",
                "See whether all pods have certificates of one CA, and whether these are valid.",
            )
    if foreign := page.total(names.TLS_REFUSALS):
        yield Finding(
            Severity.WARNING,
            f"process {name}",
            f"{name} has refused {foreign:.0f} gRPC connections or calls for their certificate: "
            f"{', '.join(sorted({labels['reason'] for labels, value in page.of(names.TLS_REFUSALS) if value}))}.",
            "See whether all components have certificates of one CA, and whether these are valid.",
        )
    if damaged := page.total(names.CHECKSUM_FAILURES) + page.total(names.RELAY_CHECKSUM_FAILURES):
        yield Finding(
            Severity.WARNING,
            f"process {name}",
            f"{name} has met {damaged:.0f} tensors or pieces of them that were not what was sent.",
            "Look for a machine with broken memory or a broken network card.",
        )
