"""What rank 0 tells the others arrives as it was said, and their stores do what its store did."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omni_stage.components.kv_cache import GrowingStore
from omni_stage.components.tensor_parallel.message import (
    ABSENT,
    ALIGNMENT,
    Message,
    Op,
    Operation,
    TensorShape,
    decode,
    encode,
    places,
)
from omni_stage.components.tensor_parallel.mirrored_store import MirroredStore, repeat
from omni_stage.components.tensor_parallel.rows import Rows, pack, shape_of, unpack

NUMBER = st.integers(0, 2**62)
OPERATIONS = st.one_of(
    st.builds(Operation, st.just(Op.OPEN), st.tuples(NUMBER, NUMBER)),
    st.builds(Operation, st.just(Op.FREE), st.tuples(NUMBER)),
    st.builds(Operation, st.just(Op.KEEP), st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)),
    st.builds(Operation, st.just(Op.LOAD), st.tuples(NUMBER, NUMBER)),
    st.builds(Operation, st.just(Op.DROP), st.tuples(NUMBER)),
)
SHAPES = st.one_of(
    st.just(ABSENT),
    st.builds(TensorShape, st.integers(0, 5), st.sampled_from([1, 2, 4, 8]), st.lists(NUMBER, max_size=4).map(tuple)),
)


@given(
    operations=st.lists(OPERATIONS, max_size=5).map(tuple),
    spans=st.lists(st.tuples(NUMBER, NUMBER), max_size=5).map(tuple),
    tensors=st.lists(SHAPES, max_size=4).map(tuple),
)
def test_a_message_arrives_as_it_was_said(
    operations: tuple[Operation, ...], spans: tuple[tuple[int, int], ...], tensors: tuple[TensorShape, ...]
) -> None:
    message = Message(operations, spans, tensors)
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [b"", bytes(7), bytes(16), encode(Message((Operation(Op.FREE, (1,)),)))[:-8], encode(Message(spans=((1, 2),))) * 2],
    ids=["nothing", "no number", "no counts", "cut short", "twice"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"message|bytes"):
        decode(data)


def test_tensors_share_one_row_of_bytes_and_come_out_as_they_went_in() -> None:
    rows: Rows = (
        torch.randn(3, 5),
        torch.randn(2, 3).to(torch.bfloat16),
        None,
        torch.tensor([True, False, True]),
        torch.arange(6).reshape(1, 2, 3).transpose(1, 2),
        torch.zeros(2, 0, 4),
    )
    shapes = [shape_of(row) for row in rows]
    packed = pack(rows, shapes)
    starts, length = places(shapes)
    assert packed.shape == (length,)
    assert all(start % ALIGNMENT == 0 for start in starts)
    for mine, theirs in zip(unpack(packed, shapes), rows, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


def heads(store: GrowingStore | MirroredStore, sequence: int, tokens: int) -> torch.Tensor:
    """Two layers of tokens that only the sequence and their number make."""
    made = (torch.arange(tokens * 4).reshape(1, tokens, 4) + 100 * sequence).float()
    for layer in (0, 1):
        keys, _ = store.append(sequence, layer, made + layer, made - layer)
    return keys


def test_another_rank_repeats_what_was_done_at_rank_0() -> None:
    own, theirs = GrowingStore(2), GrowingStore(2)

    def follow(operations: Sequence[Operation]) -> None:
        for operation in operations:
            repeat(theirs, operation)

    store = MirroredStore(own, follow)

    def step(*appended: tuple[int, int]) -> None:
        follow(store.take_noted())
        for sequence, tokens in appended:
            heads(store, sequence, tokens)
            heads(theirs, sequence, tokens)

    store.open(1, 8)
    step((1, 4))
    store.keep(1, 7, 0, 2)
    store.keep(1, 8, 2, 4)
    store.open(2, 8)
    store.free(1)
    store.load(2, 7)
    store.load(2, 8)
    store.drop(8)
    step((2, 1))
    assert (own.size, own.kept, own.length(2)) == (theirs.size, theirs.kept, theirs.length(2))
    assert torch.equal(heads(own, 2, 1), heads(theirs, 2, 1))
    assert own.kept == theirs.kept > 0
    with pytest.raises(KeyError):
        theirs.length(1)


def test_the_end_of_the_last_sequence_is_told_without_a_step() -> None:
    told: list[Sequence[Operation]] = []
    store = MirroredStore(GrowingStore(1), told.append)
    for sequence in (1, 2):
        store.open(sequence, 8)
    store.free(1)
    store.free(1)
    assert not told
    store.free(2)
    assert [operation.numbers for operation in told[0][2:]] == [(1,), (2,)]
    store.free(2)
    assert len(told) == 1
    assert not store.take_noted()


def test_what_no_step_comes_for_is_told_without_one() -> None:
    told: list[Sequence[Operation]] = []
    store = MirroredStore(GrowingStore(1), told.append)
    store.open(-1, 8)
    for sequence in range(2000):
        store.open(sequence, 8)
        store.free(sequence)
    waiting = store.take_noted()
    assert sum(map(len, told)) + len(waiting) == 4001
    assert len(waiting) <= 1024
    assert all(len(operations) <= 1025 for operations in told)
