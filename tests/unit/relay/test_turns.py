"""Whose piece goes next: order within a transfer, turns among requests, and nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.request import RequestKey
from omni_relay.core.turns import PIECE, Turn, Turns

A, B, C = RequestKey("a"), RequestKey("b"), RequestKey("c")


def drain(turns: Turns) -> list[Turn]:
    found = []
    while (turn := turns.take()) is not None:
        found.append(turn)
    return found


def test_requests_take_turns_and_each_of_them_finishes_one_transfer_after_the_other() -> None:
    turns = Turns(piece=10)
    for transfer, key in ((1, A), (2, A), (3, B), (4, C)):
        turns.add(transfer, key, 25 if key is A else 10)
    assert [turn.transfer for turn in drain(turns)] == [1, 3, 4, 1, 1, 2, 2, 2]
    assert len(turns) == 0


def test_a_small_tensor_waits_for_one_piece_of_a_large_one() -> None:
    turns = Turns()
    turns.add(1, A, 512 << 20)
    turns.take()
    turns.add(2, B, 100_000)
    assert turns.take() == Turn(1, PIECE, PIECE)
    assert turns.take() == Turn(2, 0, 100_000, first=True)


def test_a_request_has_longer_pieces_only_while_it_is_alone() -> None:
    turns = Turns(piece=10)
    turns.alone = 40
    turns.add(1, A, 100)
    assert turns.take() == Turn(1, 0, 40, first=True)
    turns.add(2, B, 15)
    assert drain(turns) == [
        Turn(1, 40, 10),
        Turn(2, 0, 10, first=True),
        Turn(1, 50, 10),
        Turn(2, 10, 5),
        Turn(1, 60, 40),
    ]


def test_a_transfer_without_bytes_has_one_turn() -> None:
    turns = Turns()
    turns.add(1, A, 0)
    assert drain(turns) == [Turn(1, 0, 0, first=True)]


def test_what_is_sent_again_goes_before_the_rest_of_its_transfer() -> None:
    turns = Turns(piece=10)
    turns.add(1, A, 30)
    turns.take()
    turns.take()
    turns.again(1, A, 0, 10)
    assert drain(turns) == [Turn(1, 0, 10), Turn(1, 20, 10)]


def test_what_is_sent_again_after_the_last_piece_is_the_last_thing() -> None:
    turns = Turns(piece=10)
    turns.add(1, A, 10)
    drain(turns)
    turns.again(1, A, 0, 10)
    assert drain(turns) == [Turn(1, 0, 10)]


def test_a_transfer_is_queued_once() -> None:
    turns = Turns()
    turns.add(1, A, 5)
    with pytest.raises(ValueError, match="queued already"):
        turns.add(1, B, 5)


def test_what_is_dropped_is_not_sent() -> None:
    turns = Turns(piece=10)
    turns.add(1, A, 30)
    turns.add(2, A, 10)
    turns.take()
    turns.drop(1)
    turns.drop(99)
    assert drain(turns) == [Turn(2, 0, 10, first=True)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 45)), max_size=12), st.data())
def test_every_byte_goes_once_and_in_order_and_no_request_is_passed_twice(
    transfers: list[tuple[int, int]], data: st.DataObject
) -> None:
    turns = Turns(piece=10)
    waiting = [(name, RequestKey(str(request)), length) for name, (request, length) in enumerate(transfers)]
    keys = {name: key for name, key, _ in waiting}
    left = {name: length for name, _, length in waiting}
    sent = dict.fromkeys(left, 0)
    queued: set[int] = set()
    since: dict[RequestKey, int] = {}  # turns of others since a request with something to send had its last one
    while waiting or len(turns):
        if waiting and (not len(turns) or data.draw(st.booleans())):
            name, key, length = waiting.pop(0)
            turns.add(name, key, length)
            queued.add(name)
            since.setdefault(key, 0)
            continue
        turn = turns.take()
        assert turn is not None
        assert turn.transfer == min(name for name in queued if keys[name] == keys[turn.transfer])
        assert turn.offset == sent[turn.transfer]
        assert turn.length <= 10
        sent[turn.transfer] += turn.length
        if sent[turn.transfer] == left[turn.transfer]:
            queued.remove(turn.transfer)
        able = {keys[name] for name in queued}
        since = {key: since.get(key, 0) + 1 for key in able if key != keys[turn.transfer]}
        if keys[turn.transfer] in able:
            since[keys[turn.transfer]] = 0
        assert all(passed <= 4 for passed in since.values())  # there are four requests
    assert sent == left
