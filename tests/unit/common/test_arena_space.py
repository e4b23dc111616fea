"""FreeSpace against a map of single bytes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omni_common.arena.space import FreeSpace

SIZE = 256


class SpaceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.space = FreeSpace()
        self.space.give(0, SIZE)
        self.free = [True] * SIZE
        self.taken: list[tuple[int, int]] = []

    @rule(size=st.integers(1, SIZE))
    def take(self, size: int) -> None:
        start = self.space.take(size)
        if start is None:
            assert max((extent for _, extent in self.space.extents), default=0) < size
            return
        assert all(self.free[start : start + size])
        self.free[start : start + size] = [False] * size
        self.taken.append((start, size))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        start, size = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.space.give(start, size)
        self.free[start : start + size] = [True] * size

    @precondition(lambda self: any(self.free))
    @rule(data=st.data(), size=st.integers(1, 16))
    def refuse_what_is_free_already(self, data: st.DataObject, size: int) -> None:
        start = data.draw(st.sampled_from([i for i, free in enumerate(self.free) if free]))
        with pytest.raises(ValueError, match="free already"):
            self.space.give(start, size)

    @invariant()
    def extents_are_the_free_bytes_in_order_and_never_adjacent(self) -> None:
        covered = [False] * SIZE
        end_before = -1
        for start, size in self.space.extents:
            assert start > end_before
            covered[start : start + size] = [True] * size
            end_before = start + size
        assert covered == self.free
        assert self.space.free == sum(self.free)

    def teardown(self) -> None:
        for start, size in self.taken:
            self.space.give(start, size)
        assert self.space.extents == ((0, SIZE),)


TestFreeSpace = SpaceMachine.TestCase
TestFreeSpace.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_new_extent_beside_a_free_one_becomes_one_with_it() -> None:
    space = FreeSpace()
    for start in (0, 128, 64):
        space.give(start, 64)
    assert space.extents == ((0, 192),)
    assert space.take(192) == 0
