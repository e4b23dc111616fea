"""Options that are lists written as text."""

from __future__ import annotations

import pytest

from omni_cli.errors import CommandError
from omni_cli.wishes import parse_device, parse_groups, parse_replicas


def test_replicas_may_be_repeated_or_separated_by_commas() -> None:
    assert parse_replicas(["thinker=2, talker=3", "a/read=1"]) == {"thinker": 2, "talker": 3, "a/read": 1}


@pytest.mark.parametrize("option", ["thinker", "thinker=", "thinker=0", "thinker=65", "thinker=-1", "thinker=two"])
def test_a_number_of_replicas_that_makes_no_sense_is_named(option: str) -> None:
    with pytest.raises(CommandError, match=f"--replicas {option} is not understood"):
        parse_replicas([option])


def test_each_colocate_option_is_one_group() -> None:
    assert parse_groups(["a,b", "c, d"]) == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_a_device_is_one_that_there_can_be(device: str) -> None:
    assert parse_device(device) == device


@pytest.mark.parametrize("device", ["", "foo", "cuda:", "cuda:x", "cpu:0"])
def test_any_other_device_is_refused_before_anything_starts(device: str) -> None:
    with pytest.raises(CommandError, match="write auto, cpu, cuda or cuda:1"):
        parse_device(device)
