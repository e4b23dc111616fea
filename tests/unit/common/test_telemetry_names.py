"""Metrics: named by the rules, and bounded whatever happens."""

from __future__ import annotations

import re

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from omni_common.errors import Reason
from omni_common.telemetry import names

METRICS = {name: metric for name, metric in vars(names).items() if isinstance(metric, MetricWrapperBase)}
UNITS = ("_seconds", "_bytes", "_rtf", "_size", "_info")
BOUNDED = {
    "pipeline", "stage", "edge", "outcome", "reason", "route", "method", "code", "direction", "kind", "modality",
    "transport", "service", "version", "holder", "limit", "certificate",
}  # fmt: skip


def name_of(metric: MetricWrapperBase) -> str:
    return next(iter(metric.collect())).name


def labels_of(metric: MetricWrapperBase) -> tuple[str, ...]:
    return tuple(metric._labelnames)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_names_follow_the_rules(metric: MetricWrapperBase) -> None:
    name = name_of(metric)
    assert re.fullmatch(r"omni_[a-z_]+", name)
    assert not name.endswith(("_s", "_ms", "_mb"))
    if isinstance(metric, Histogram):
        assert name.endswith(UNITS)
    assert isinstance(metric, Counter | Gauge | Histogram)
    assert metric._documentation.endswith(".")


def test_no_label_can_be_chosen_by_a_client() -> None:
    assert {label for metric in METRICS.values() for label in labels_of(metric)} <= BOUNDED


def test_outcomes_are_a_closed_set() -> None:
    outcomes = {names.outcome_of(reason) for reason in (None, *Reason)}
    assert len(outcomes) == len(Reason) + 1
    assert all(re.fullmatch(r"[a-z_]+", outcome) for outcome in outcomes)
