"""The rules by Prometheus's own tool, and that each alert is tested ringing and not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.observability.programs import programs
from tests.observability.written import CHART, alerts, rules

TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([programs().promtool, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert not done.returncode, done.stdout + done.stderr


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted((CHART / "rules").iterdir()))


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: path.stem)
def test_alerts_ring_when_they_should_and_only_then(tests: Path) -> None:
    promtool("test", "rules", tests)


def _expected() -> Iterator[tuple[str, bool]]:
    for path in TESTS:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group.get("alert_rule_test", ()):
                yield case["alertname"], bool(case["exp_alerts"])


@pytest.mark.parametrize("alert", alerts())
@pytest.mark.parametrize("rings", [True, False], ids=["ringing", "silent"])
def test_each_alert_is_tested_ringing_and_silent(alert: str, rings: bool) -> None:
    assert (alert, rings) in set(_expected())


@pytest.mark.parametrize("rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert all(sentence.strip().endswith(".") for sentence in rule["annotations"].values())
