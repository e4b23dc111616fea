"""Pure: a plan as sentences, and as values of the chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from omni_cli.capacity.measured import Measured
from omni_cli.capacity.sizing import Bound, Load, Need


def sentences(measured: Measured, load: Load, needed: Sequence[Need]) -> Iterator[str]:
    """What is planned, from what, and why so much of it."""
    yield f"{measured.pipeline}: {_load(measured, load)}, from {measured.requests:.0f} measured requests."
    for need in needed:
        replicas = "1 replica" if need.replicas == 1 else f"{need.replicas} replicas"
        yield f"  {need.group}: {replicas}. {' '.join(_why(need, measured, load))}"
    if len(needed) > 1:
        yield f"  The ratio {':'.join(need.group for need in needed)} is {':'.join(str(n.replicas) for n in needed)}."
    if load.stretch != 1:
        yield (
            f"  Answers are taken to be {load.stretch:.2g} times as long as the measured ones, in every stage that "
            "takes more than one step for a request."
        )


def values(plans: Mapping[str, Sequence[Need]]) -> str:
    """For `helm upgrade --values`; groups of which nothing was measured are left as they are."""
    lines = ["pipelines:"]
    for pipeline, needed in plans.items():
        lines += [f"  {pipeline}:", "    placementGroups:"]
        for need in needed:
            if need.bound is not None:
                lines += [f"      {need.group}:", f"        replicas: {need.replicas}"]
    return "\n".join(lines)


def _load(measured: Measured, load: Load) -> str:
    parts = [f"{load.requests_per_second:g} requests/s"]
    if measured.audio_seconds:
        parts.append(f"{measured.audio_seconds * load.stretch:.1f} s of audio each")
    return f"{', '.join(parts)}, replicas at most {load.utilisation:.0%} used"


def _why(need: Need, measured: Measured, load: Load) -> Iterator[str]:
    if need.bound is None:
        yield "No request was in it, so that nothing is known of it."
        return
    yield _binding(need.bound, load)
    if not need.bound.places:
        batches = [f"{stage} {measured.costs[stage].batch:.1f}" for stage in need.bound.stages]
        yield f"Mean batch: {', '.join(batches)}."
    if need.unmeasured:
        yield f"No request was in {', '.join(need.unmeasured)}."


def _binding(bound: Bound, load: Load) -> str:
    rate, each, share = load.requests_per_second, bound.per_request, f"{load.utilisation:.0%}"
    who = " and ".join(bound.stages) if len(bound.stages) < 3 else f"{', '.join(bound.stages)} together"
    used = f"at {share} use that is {bound.amount / load.utilisation:.2f}"
    if bound.places:
        return f"A request stays {each:.3g} s in {who}: {rate:g}/s fill {bound.amount:.2f} replicas' places, {used}."
    works = "work" if len(bound.stages) > 1 else "works"
    return f"{who} {works} {each:.3g} s for a request: {rate:g}/s take {bound.amount:.2f} replicas' time, {used}."
