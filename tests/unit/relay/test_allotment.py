"""Space in another arena: who gets it, who waits, and what is asked for and given back."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omni_common.arena.extents import Extent
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.request import RequestKey
from omni_relay.core.allotment import IDLE, LARGE, PATIENCE, PROMPT, Allotment, Place
from omni_relay.core.misbehaviour import Misbehaved

A, B, C = RequestKey("a"), RequestKey("b"), RequestKey("c")
MIB = 1 << 20


def extent(index: int, size: int, offset: int = 8192) -> Extent:
    return Extent(index, index + 1000, offset, size)


def granted(*sizes: int) -> Allotment:
    """With extents of those sizes, in which nothing lies."""
    allotment = Allotment()
    offset = 8192
    for index, size in enumerate(sizes):
        allotment.ask(-1, RequestKey("first"), size - 64)
        assert allotment.wants(0.0) == [size]
        allotment.withdraw(-1)
        allotment.grant(extent(index, size, offset))
        offset += size
    return allotment


def names(placed: list[tuple[int, Place]]) -> list[int]:
    return [transfer for transfer, _ in placed]


def test_space_is_asked_for_once_and_used_when_it_comes() -> None:
    allotment = Allotment()
    allotment.ask(1, A, 1000)
    assert allotment.place() == []
    assert allotment.wants(0.0) == [slot_size(1000)]
    assert allotment.wants(0.0) == []
    allotment.grant(extent(3, 4096))
    assert allotment.place() == [(1, Place(3, 8192 + SlotHead.SIZE))]


def test_a_large_want_does_not_stand_before_a_small_one() -> None:
    allotment = Allotment()
    allotment.ask(1, A, 1 << 30)
    assert allotment.wants(0.0) == [slot_size(1 << 30)]
    allotment.ask(2, B, 100_000)
    assert allotment.wants(0.0) == [slot_size(100_000)]
    allotment.grant(extent(0, MIB))
    assert names(allotment.place()) == [2]
    allotment.ask(3, C, MIB)
    assert allotment.wants(0.0) == [slot_size(MIB)]
    allotment.grant(extent(1, 2 << 30, 1 << 30))
    assert names(allotment.place()) == [1, 3]


def test_those_of_one_request_are_placed_in_their_order() -> None:
    allotment = granted(4096)
    allotment.ask(1, A, 8192)
    allotment.ask(2, A, 100)
    allotment.ask(3, B, 100)
    assert names(allotment.place()) == [3]
    allotment.grant(extent(1, 16384, 1 << 20)) if allotment.wants(0.0) else None
    assert names(allotment.place()) == [1, 2]


def test_the_oldest_is_not_overtaken_for_ever() -> None:
    """It would fit if the others left it alone; they take turns in leaving."""
    allotment = granted(LARGE)
    allotment.ask(100, A, LARGE // 2)
    first = allotment.place()
    allotment.ask(0, B, LARGE - 64)  # needs all of it
    small = MIB - 64
    overtaken, lying, placed = 0, [place for _, place in first], False
    for transfer in range(1, 200):
        allotment.ask(transfer, C, small)
        arrived = allotment.place()
        placed = placed or 0 in names(arrived)
        overtaken += sum(transfer != 0 for transfer in names(arrived)) * slot_size(small) * (not placed)
        lying += [place for _, place in arrived]
        if lying:
            allotment.free(lying.pop(0))
    assert placed
    assert overtaken <= 2 * PATIENCE


def test_one_who_needs_a_larger_extent_than_there_is_gets_those_given_back() -> None:
    allotment = granted(LARGE, LARGE)
    allotment.ask(1, A, 100)
    ((_, place),) = allotment.place()
    allotment.ask(2, B, 2 * LARGE)
    assert allotment.place() == []
    assert allotment.wants(0.0) == [slot_size(2 * LARGE)]
    assert allotment.give_back(0.0) == [1], "the one in which something lies stays"
    allotment.free(place)
    assert allotment.give_back(0.0) == [0]
    assert allotment.held == 0


def test_empty_extents_go_back_when_a_want_takes_long() -> None:
    allotment = granted(MIB, MIB)
    allotment.ask(1, A, 2 * MIB)
    allotment.place()
    assert allotment.wants(1.0) == [slot_size(2 * MIB)]
    assert allotment.give_back(1.0) == []
    assert allotment.give_back(1.0 + PROMPT) == [0, 1]


def test_an_extent_goes_back_when_it_was_empty_for_a_while() -> None:
    allotment = granted(MIB, MIB)
    allotment.ask(1, A, 100)
    ((_, place),) = allotment.place()
    assert allotment.give_back(10.0) == []
    assert allotment.give_back(10.0 + IDLE) == [1]
    allotment.free(place)
    assert allotment.give_back(20.0) == []
    allotment.ask(2, A, 100)
    allotment.place()
    assert allotment.give_back(20.0 + IDLE) == []


def test_who_hopes_for_what_can_never_be_is_given_up() -> None:
    allotment = Allotment()
    allotment.ask(1, A, 64 * MIB)
    allotment.ask(2, B, 65 * MIB)
    allotment.ask(3, C, 100)
    allotment.wants(0.0)
    assert allotment.refuse(slot_size(64 * MIB)) == [1, 2]
    assert list(allotment.waiting) == [3]


def test_nobody_grants_refuses_or_frees_what_was_not_asked_for() -> None:
    allotment = granted(MIB)
    for lie in (
        lambda: allotment.grant(extent(0, MIB)),
        lambda: allotment.grant(extent(1, MIB, 1 << 30)),
        lambda: allotment.refuse(100),
        lambda: allotment.free(Place(0, 8256)),
    ):
        with pytest.raises(Misbehaved):
            lie()
    allotment.ask(1, A, 2 * MIB)
    allotment.wants(0.0)
    with pytest.raises(Misbehaved, match="too small"):
        allotment.grant(extent(2, MIB, 1 << 30))


class AllotmentMachine(RuleBasedStateMachine):
    """Against a map of the other arena, in lines of 64 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.allotment = Allotment()
        self.names = count(1)
        self.indices = count()
        self.sizes: dict[int, int] = {}
        self.requests: dict[int, int] = {}
        self.lying: dict[Place, int] = {}
        self.extents: dict[int, Extent] = {}
        self.asked: list[int] = []
        self.end = 8192
        self.now = 0.0

    @rule(request=st.integers(0, 3), length=st.integers(0, 4000))
    def ask(self, request: int, length: int) -> None:
        name = next(self.names)
        self.sizes[name], self.requests[name] = slot_size(length), request
        self.allotment.ask(name, RequestKey(str(request)), length)
        self.settle()

    @precondition(lambda self: self.asked)
    @rule(more=st.integers(0, 80))
    def grant(self, more: int) -> None:
        size = self.asked.pop() + 64 * more
        new = extent(next(self.indices), size, self.end)
        self.end += size
        self.extents[new.index] = new
        self.allotment.grant(new)
        self.settle()

    @precondition(lambda self: self.lying)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        self.free_one(data.draw(st.sampled_from(sorted(self.lying, key=lambda place: place.offset))))

    def free_one(self, place: Place) -> None:
        del self.lying[place]
        self.allotment.free(place)
        self.settle()

    @precondition(lambda self: self.allotment.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.allotment.withdraw(data.draw(st.sampled_from(list(self.allotment.waiting))))
        self.settle()

    @rule(seconds=st.sampled_from([0.1, IDLE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def settle(self) -> None:
        waiting = list(self.allotment.waiting)
        placed = self.allotment.place()
        for name, place in placed:
            assert not [other for other in waiting if other < name and self.waits_before(other, name)]
            home = self.extents[place.extent]
            start, end = place.offset - 64, place.offset - 64 + self.sizes[name]
            assert start % 64 == 0
            assert home.offset <= start < end <= home.end
            assert all(
                end <= other.offset - 64 or start >= other.offset - 64 + size for other, size in self.lying.items()
            )
            self.lying[place] = self.sizes[name]
        self.asked += self.allotment.wants(self.now)
        for index in self.allotment.give_back(self.now):
            del self.extents[index]
            # By its extent: what is empty lies behind its head, where the next extent may begin.
            assert not [place for place in self.lying if place.extent == index]

    def waits_before(self, other: int, name: int) -> bool:
        return other in self.allotment.waiting and self.requests[other] == self.requests[name]

    @invariant()
    def the_books_agree(self) -> None:
        assert self.allotment.taken == sum(self.lying.values())
        assert self.allotment.held == sum(home.size for home in self.extents.values())
        assert len(self.asked) <= 1
        assert not self.allotment.waiting or self.asked, "who waits has asked"


def test_what_is_empty_lies_in_its_own_extent_though_the_next_begins_where_it_does() -> None:
    """An extent that is as large as a slot's head ends where the bytes would begin."""
    machine = AllotmentMachine()
    for length in (0, 1):
        machine.ask(0, length)
        machine.grant(0)
        machine.free_one(*machine.lying)
    machine.wait(0.1)
    machine.ask(0, 0)
    (place,) = machine.lying
    machine.wait(IDLE)
    machine.the_books_agree()
    assert list(machine.extents) == [place.extent]
    assert machine.lying == {place: slot_size(0)}


TestAllotment = AllotmentMachine.TestCase
TestAllotment.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
