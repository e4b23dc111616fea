"""From the settings of a process to those of the replicas in it."""

from __future__ import annotations

from typing import Any

import pytest

from omni_stage.settings import StageSettings


def settings(**fields: Any) -> StageSettings:
    return StageSettings(**{"family": "echo", "replica": "echo-0", "coordinators": "host:1", **fields})


def each(**fields: Any) -> list[tuple[str, str, str]]:
    return [(one.stage, one.replica, one.bind) for one in settings(**fields).of_each_stage()]


def test_a_process_of_one_stage_has_its_settings() -> None:
    assert each(stage="split", bind="[::1]:7000") == [("split", "echo-0", "[::1]:7000")]


def test_of_several_stages_each_has_a_name_and_an_address() -> None:
    assert each(stage="split, join") == [("split", "echo-0.split", "0.0.0.0:0"), ("join", "echo-0.join", "0.0.0.0:0")]
    assert each(stage="split,join", bind="[::1]:7000") == [
        ("split", "echo-0.split", "[::1]:7000"),
        ("join", "echo-0.join", "[::1]:7001"),
    ]


@pytest.mark.parametrize("stage", ["", "split,", "split,split"])
def test_stages_that_are_missing_or_named_twice_are_refused(stage: str) -> None:
    with pytest.raises(ValueError, match="several that differ"):
        settings(stage=stage)
