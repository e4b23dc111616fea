"""The door of the coordinator."""

from __future__ import annotations

from functools import partial

import pytest

from omni_common.errors import OmniError, Overloaded, Reason
from omni_coordinator.core.admission import Admission, MediaBudget


def test_a_full_house_refuses_with_advice_when_to_come_back() -> None:
    door = Admission(max_live=2)
    door.take()
    door.take()
    with pytest.raises(Overloaded) as refusal:
        door.take()
    assert refusal.value.retry_after is not None
    assert door.live == 2


def test_a_place_given_back_can_be_taken_again() -> None:
    door = Admission(max_live=1)
    door.take()
    door.give_back()
    door.take()
    assert door.live == 1


def test_a_closed_door_refuses_even_where_there_is_room() -> None:
    door = Admission(max_live=1)
    door.close()
    with pytest.raises(OmniError) as refusal:
        door.take()
    assert refusal.value.reason is Reason.STAGE_UNAVAILABLE
    assert refusal.value.surface.retry


def test_media_beyond_the_budget_are_refused_and_count_for_nothing() -> None:
    budget = MediaBudget(100)
    assert budget.try_take(60)
    assert not budget.try_take(41)
    assert budget.try_take(40)
    budget.give_back(60)
    assert budget.held == 40


def test_what_is_kept_gives_way_to_what_comes_the_oldest_first() -> None:
    gone: list[str] = []
    budget = MediaBudget(100)
    for name, size in (("first", 40), ("second", 30), ("third", 20)):
        budget.keep(name, size, partial(gone.append, name))
    assert budget.try_take(30)
    assert (gone, budget.held, budget.kept) == (["first"], 30, 50)
    budget.drop("second")
    budget.drop("second")
    assert (budget.kept, gone) == (20, ["first"])
    assert not budget.try_take(71)
    assert budget.try_take(70)
    assert (gone, budget.held, budget.kept) == (["first", "third"], 100, 0)


def test_what_finds_no_room_is_not_kept() -> None:
    gone: list[str] = []
    budget = MediaBudget(100)
    budget.keep("too large", 101, partial(gone.append, "too large"))
    assert (gone, budget.kept) == (["too large"], 0)
