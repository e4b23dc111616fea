"""The service levels: recording rules of how far they are missed, and alerts for budgets that burn.

An alert rings where a budget burns fast over a long window and over a short one, so that it rings soon and stops soon
(the multi-window rule of Google's SRE workbook).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_HTTP = 'omni_http_requests_total{route=~"/v1/.*"'
# Ours, not the caller's. A stream that fails before its first byte has a 5xx, too, and counts twice: better than not.
_BROKEN = "internal|stage_failed|stage_unavailable|lease_lost|data_corrupted|deadline_exceeded"
# Fewer requests in an hour than this say nothing about a ratio.
_ENOUGH = 20


@dataclass(frozen=True, slots=True)
class Objective:
    """`missed` is the share of answers that missed it, over `{window}`; `budget` is the share that may."""

    name: str
    alert: str
    budget: float
    missed: str
    what: str
    runbook: str


@dataclass(frozen=True, slots=True)
class Burn:
    """Budgets per period that two windows must both see to ring."""

    factor: float
    long: str
    short: str
    severity: str


BURNS = (
    Burn(14.4, "1h", "5m", "critical"),
    Burn(6, "6h", "30m", "critical"),
    Burn(1, "3d", "6h", "warning"),
)
WINDOWS = ("5m", "30m", "1h", "6h", "3d")


def _failed() -> str:
    every = f"sum by (namespace) (rate({_HTTP}}}[{{window}}]))"
    codes = f'sum by (namespace) (rate({_HTTP},code=~"5.."}}[{{window}}]))'
    streams = f'sum by (namespace) (rate(omni_stream_outcomes_total{{outcome=~"{_BROKEN}"}}[{{window}}]))'
    return f"clamp_max((({codes} or 0 * {every}) + ({streams} or 0 * {every})) / ({every} > 0), 1)"


def _slower(metric: str, seconds: float) -> str:
    in_time = f'sum by (namespace, pipeline) (rate({metric}_bucket{{le="{seconds}"}}[{{window}}]))'
    return f"1 - {in_time} / (sum by (namespace, pipeline) (rate({metric}_count[{{window}}])) > 0)"


OBJECTIVES = (
    Objective(
        name="omni:errors",
        alert="OmniErrorBudgetBurns",
        budget=0.001,
        missed=_failed(),
        what="{{ $value | humanizePercentage }} of the answers failed for a fault of ours",
        runbook="Dashboard omni / Overview, row Errors, says which reason and pipeline; the failures of each stage "
        "are on omni / Pipeline, and its log has the request ids.",
    ),
    Objective(
        name="omni:first_output_slow",
        alert="OmniFirstOutputBudgetBurns",
        budget=0.05,
        missed=_slower("omni_time_to_first_output_seconds", 1.0),
        what="{{ $value | humanizePercentage }} of the answers of {{ $labels.pipeline }} began later than after 1 s",
        runbook="Dashboard omni / Pipeline shows the stage in which requests wait; give that one replicas or places.",
    ),
    Objective(
        name="omni:first_audio_slow",
        alert="OmniFirstAudioBudgetBurns",
        budget=0.05,
        missed=_slower("omni_time_to_first_audio_seconds", 2.5),
        what="{{ $value | humanizePercentage }} of the answers of {{ $labels.pipeline }} began to speak later than "
        "after 2.5 s",
        runbook="Dashboard omni / Pipeline shows the stage in which requests wait; for speech that is mostly the "
        "talker or the vocoder.",
    ),
)


def rules() -> str:
    """The Prometheus rule file."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Made by `python -m omni_cli.dashboards`: change services/cli/omni_cli/dashboards/objectives.py instead."
    yield "groups:"
    yield from ("  - name: omni-objectives", "    rules:")
    yield from _record("omni:http_requests:increase1h", f"sum by (namespace) (increase({_HTTP}}}[1h]))")
    for objective in OBJECTIVES:
        for window in WINDOWS:
            missed = objective.missed.replace("{window}", window)
            yield from _record(f"{objective.name}:ratio_rate{window}", missed)
    yield from ("  - name: omni-budgets", "    rules:")
    for objective in OBJECTIVES:
        for burn in BURNS:
            yield from _alert(objective, burn)


def _record(name: str, expression: str) -> Iterator[str]:
    yield f"      - record: {name}"
    yield "        expr: >-"
    yield f"          {expression}"


def _alert(objective: Objective, burn: Burn) -> Iterator[str]:
    most = f"{burn.factor} * {objective.budget}"
    yield f"      - alert: {objective.alert}"
    yield "        expr: >-"
    yield f"          {objective.name}:ratio_rate{burn.long} > {most}"
    yield f"          and {objective.name}:ratio_rate{burn.short} > {most}"
    yield f"          and on (namespace) omni:http_requests:increase1h > {_ENOUGH}"
    yield f"        labels: {{severity: {burn.severity}, window: {burn.long}}}"
    yield "        annotations:"
    yield f"          summary: The budget of {objective.name.removeprefix('omni:')} burns {burn.factor} times too fast."
    yield "          description: >-"
    yield f"            In the last {burn.long}, {objective.what}; {objective.budget:.1%} may."
    yield "          runbook: >-"
    yield f"            {objective.runbook}"
