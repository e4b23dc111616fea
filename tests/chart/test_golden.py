"""The documented topologies render as a reviewer saw them. `make golden` writes what they render to now."""

from __future__ import annotations

import difflib

import pytest
from tests.chart.conftest import Renderer
from tests.chart.golden import FOLDER, is_update, text
from tests.chart.topologies import DOCUMENTED, TOPOLOGIES


@pytest.mark.parametrize("topology", DOCUMENTED)
def test_a_topology_renders_as_it_did(topology: str, render: Renderer) -> None:
    path = FOLDER / f"{topology}.yaml"
    wanted = TOPOLOGIES[topology]
    now = text(render(**wanted.arguments()), None if wanted.golden == "whole" else render())
    if is_update():
        path.parent.mkdir(exist_ok=True)
        path.write_text(now)
    before = path.read_text() if path.exists() else ""
    if now != before:
        difference = difflib.unified_diff(before.splitlines(), now.splitlines(), "golden", "now", lineterm="", n=2)
        pytest.fail(
            "\n".join(["The chart renders otherwise. If that is meant: make golden", *difference]), pytrace=False
        )


def test_no_golden_is_left_of_a_topology_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(DOCUMENTED)


def test_no_golden_holds_a_key() -> None:
    assert not [path.name for path in FOLDER.glob("*.yaml") if "PRIVATE KEY" in path.read_text()]
