"""What is free, and where things go in it."""

from __future__ import annotations

import pytest

from omni_relay.core.placing import gaps, place, rooms
from omni_relay.core.waiting import MAX_PASSED, Waiter, WaitingLine


def test_what_is_free_lies_between_what_is_taken() -> None:
    assert gaps(10, 100, []) == [(10, 90)]
    assert gaps(10, 100, [(50, 10), (10, 20), (60, 10)]) == [(30, 20), (70, 30)]
    assert gaps(10, 100, [(10, 90)]) == []


@pytest.mark.parametrize("taken", [[(9, 2)], [(99, 2)], [(20, 10), (29, 1)], [(20, 0)]])
def test_what_overlaps_or_reaches_outside_is_refused(taken: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        gaps(10, 100, taken)


def test_the_first_gap_that_holds_all_is_taken_from_either_end() -> None:
    free = [(0, 5), (10, 20), (40, 20)]
    assert place(free, 1, 10, from_top=False) == (10, 10)
    assert place(free, 1, 10, from_top=True) == (50, 10)


def test_where_not_all_fits_the_largest_gap_gives_what_it_has_if_that_is_enough() -> None:
    free = [(0, 5), (10, 8)]
    assert place(free, 6, 100, from_top=False) == (10, 8)
    assert place(free, 9, 100, from_top=False) is None
    assert place([], 1, 1, from_top=True) is None


def test_rooms_are_whole() -> None:
    assert rooms([(0, 25), (30, 9), (40, 10)], 10) == 3


def test_who_came_first_is_served_first_and_a_second_want_keeps_its_place() -> None:
    line = WaitingLine()
    line.add("a", 1)
    line.add("b", 1)
    line.add("a", 2)
    served = line.serve(lambda waiter: True, lambda waiter: False)
    assert served == Waiter("a", 2)
    assert "b" in line
    assert "a" not in line


def test_one_that_does_not_fit_is_passed_a_few_times_and_then_only_by_modest_ones() -> None:
    line = WaitingLine()
    line.add("large", 100)

    def serve(name: str, *, modest: bool) -> Waiter | None:
        line.add(name, 1)
        return line.serve(lambda waiter: waiter.size == 1, lambda waiter: modest)

    assert all(serve(f"small {n}", modest=False) for n in range(MAX_PASSED))
    assert serve("one too many", modest=False) is None
    assert serve("modest", modest=True) == Waiter("one too many", 1)
    assert len(line) == 2
