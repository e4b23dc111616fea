"""The waterfall of a request."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from omni_cli.waterfall import parse_timings, render_waterfall


def stage(name: str, first_input: float, first_output: float, end: float) -> dict[str, object]:
    return {"stage": name, "replica": f"{name}-0", "first_input": first_input, "first_output": first_output, "end": end}


def test_each_stage_is_a_bar_from_its_first_input_to_its_end_in_the_order_of_first_inputs() -> None:
    extension = {"request_id": "r", "stages": [stage("thinker", 0.24, 0.36, 0.48), stage("preprocess", 0, 0.24, 0.24)]}
    assert render_waterfall(parse_timings(extension)).splitlines() == [
        "stage        first in first out       end",
        "preprocess       0 ms    240 ms    240 ms  " + "░" * 24,
        "thinker        240 ms    360 ms    480 ms  " + " " * 24 + "░" * 12 + "█" * 12,
        "░ from first input to first output   █ from first output to end",
    ]


def test_a_stage_too_quick_to_see_still_has_a_mark() -> None:
    line = render_waterfall(parse_timings({"stages": [stage("a", 0, 1, 1), stage("b", 1, 1, 1)]})).splitlines()[2]
    assert line.endswith("  " + " " * 48 + "█")


def test_a_reply_without_stages_is_refused() -> None:
    with pytest.raises(ValidationError, match="stages"):
        parse_timings({"request_id": "r"})
