"""Deadlines only shrink."""

from __future__ import annotations

import pytest

from omni_common.deadline import Deadline
from omni_common.testing.clock import ManualClock


def test_what_remains_shrinks_to_zero_and_no_further() -> None:
    clock = ManualClock(100.0)
    deadline = Deadline.after(10.0, clock)
    clock.advance(4.0)
    assert (deadline.remaining, deadline.passed) == (6.0, False)
    clock.advance(6.0)
    assert (deadline.remaining, deadline.passed) == (0.0, True)
    clock.advance(1.0)
    assert (deadline.remaining, deadline.passed) == (0.0, True)


@pytest.mark.parametrize(("bound", "remaining"), [(3.0, 3.0), (30.0, 10.0)])
def test_a_step_inside_a_deadline_never_prolongs_it(bound: float, remaining: float) -> None:
    assert Deadline.after(10.0, ManualClock()).sooner(bound).remaining == remaining


def test_a_manual_clock_never_goes_back() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        ManualClock().advance(-1.0)
