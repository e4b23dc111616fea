"""Rank 0: what it tells, and that nothing of a step that was broken off passes for a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from omni_common.errors import StageUnavailable
from omni_stage.components.attention import Packed, Span
from omni_stage.components.kv_cache import GrowingStore
from omni_stage.components.pair_group import GroupFailed
from omni_stage.components.tensor_parallel.leader import Leader
from omni_stage.components.tensor_parallel.message import Message, Op, Operation, TensorShape, decode
from omni_stage.components.tensor_parallel.rows import Rows
from omni_stage.tensor_parallel.line import Line, pair
from omni_stage.tensor_parallel.rank import Leading, Rank

ROWS: Rows = (torch.ones(2, 4), None)


class Alone:
    """A group whose collectives do as they are told."""

    def __init__(self, share: Callable[[], None] = lambda: None, settle: Callable[[], None] = lambda: None) -> None:
        self._share = share
        self._settle = settle

    def add(self, term: torch.Tensor) -> None: ...

    def share(self, data: torch.Tensor) -> None:
        self._share()

    def settle(self) -> None:
        self._settle()

    def interrupt(self) -> None: ...


@pytest.fixture
def rank_0() -> Iterator[tuple[Leading, Line]]:
    """It, and the end of its follower."""
    ours, theirs = pair()
    follower = Line(theirs)
    yield Leading("thinker", Rank(size=2, timeout=1.0), [ours]), follower
    ours.close()
    follower.close()


def double(rows: Rows, packed: Packed) -> torch.Tensor:
    assert rows[0] is not None
    return rows[0] * 2


def test_a_step_is_told_before_it_is_taken(rank_0: tuple[Leading, Line]) -> None:
    leading, follower = rank_0
    leader = Leader(leading, Alone(), GrowingStore(1))
    leader.store.open(7, 16)
    hidden = leader.lead(double)(ROWS, Packed(leader.store, [Span(7, 2)]))
    assert torch.equal(hidden, torch.full((2, 4), 2.0))
    told = follower.receive()
    assert told is not None
    assert decode(told) == Message(
        (Operation(Op.OPEN, (7, 16)),), ((7, 2),), (TensorShape(0, 4, (2, 4)), TensorShape(-1))
    )
    leading.break_off("end")
    assert follower.receive() is None


def test_what_a_broken_off_step_made_is_no_result(rank_0: tuple[Leading, Line]) -> None:
    """NCCL's collectives end without a word when they are aborted, and leave anything in their tensors."""
    leading, _ = rank_0
    leader = Leader(leading, Alone(settle=lambda: leading.break_off("are not complete")), GrowingStore(1))
    with pytest.raises(StageUnavailable, match="Stage 'thinker' lost one of its ranks"):
        leader.lead(double)(ROWS, Packed(leader.store, []))
    assert leading.why == "are not complete"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (GroupFailed("broke (timed out)"), "no longer work together: their group broke (timed out)"),
        (MemoryError("none left"), "broke in a step at rank 0: MemoryError"),
    ],
    ids=["the group", "anything else"],
)
def test_a_fault_in_a_step_is_the_end_of_all_ranks(error: Exception, why: str, rank_0: tuple[Leading, Line]) -> None:
    def fail() -> None:
        raise error

    leading, follower = rank_0
    step = Leader(leading, Alone(share=fail), GrowingStore(1)).lead(double)
    with pytest.raises(StageUnavailable):
        step(ROWS, Packed(GrowingStore(1), []))
    assert leading.why == why
    assert follower.receive() is not None
    assert follower.receive() is None
    with pytest.raises(StageUnavailable):
        step(ROWS, Packed(GrowingStore(1), []))
    assert leading.why == why, "the first reason is kept"
