"""What a receiving relay believes: transfers within grants, pieces in order, one second chance, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from omni_common.arena.extents import Extent
from omni_common.request import RequestKey
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.receiving import MAX_SLOTS, Begin, Receiving, Resend

HOME = Extent(index=5, epoch=77, offset=8192, size=4096)
END = HOME.offset + HOME.size


def begin(number: int = 1, offset: int = HOME.offset + 64, length: int = 100, index: int = 5) -> Begin:
    return Begin(number, 9, number, "sink-0", RequestKey("r"), 50.0, index, offset, length)


@pytest.fixture
def receiving() -> Receiving:
    made = Receiving()
    made.grant(HOME)
    return made


def feed(receiving: Receiving, number: int, offset: int, length: int) -> int | None:
    place = receiving.piece(number, offset, length)
    if place is not None:
        receiving.sound(number, offset, length)
    return place


def test_a_transfer_is_complete_when_all_its_pieces_lie_there(receiving: Receiving) -> None:
    receiving.begin(begin())
    assert feed(receiving, 1, 0, 60) == HOME.offset + 64
    assert receiving.complete(1) is None
    assert feed(receiving, 1, 60, 40) == HOME.offset + 124
    slot = receiving.complete(1)
    assert slot is not None
    assert (slot.extent, slot.generation, slot.begin) == (HOME, 1, begin())
    assert receiving.complete(1) is None
    assert receiving.unfinished == 0


def test_a_tensor_without_bytes_is_complete_at_once(receiving: Receiving) -> None:
    receiving.begin(begin(length=0))
    assert receiving.complete(1) is not None


def test_generations_are_never_used_twice_in_a_grant(receiving: Receiving) -> None:
    for number in (1, 2, 3):
        receiving.begin(begin(number, length=0))
        slot = receiving.complete(number)
        assert slot is not None
        assert slot.generation == number
        receiving.free(5, HOME.offset + 64)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(begin(index=6), id="no grant of that index"),
        pytest.param(begin(offset=HOME.offset), id="the head lies before the extent"),
        pytest.param(begin(offset=HOME.offset - 64), id="before the extent"),
        pytest.param(begin(offset=END), id="after the extent"),
        pytest.param(begin(offset=END - 64, length=65), id="reaches beyond the extent"),
        pytest.param(begin(length=HOME.size), id="longer than the extent"),
        pytest.param(begin(length=2**64 - 1), id="a length that would wrap around"),
        pytest.param(begin(offset=2**64 - 64), id="an offset that would wrap around"),
        pytest.param(begin(offset=HOME.offset + 65), id="beside a line"),
        pytest.param(begin(offset=0, length=0), id="the arena's head"),
        pytest.param(begin(number=2), id="a number left out"),
        pytest.param(begin(number=0), id="no number"),
    ],
)
def test_nothing_begins_outside_of_a_grant(receiving: Receiving, lie: Begin) -> None:
    with pytest.raises(Misbehaved):
        receiving.begin(lie)
    assert receiving.unfinished == 0


@pytest.mark.parametrize(("offset", "length"), [(256, 10), (256 + 64, 10), (192, 1), (64, 1000), (256 + 128, 0)])
def test_nothing_begins_where_something_lies(receiving: Receiving, offset: int, length: int) -> None:
    receiving.begin(begin(1, HOME.offset + 256, 100))
    with pytest.raises(Misbehaved, match="where another one lies"):
        receiving.begin(begin(2, HOME.offset + offset, length))


def test_what_was_delivered_lies_there_until_it_is_freed(receiving: Receiving) -> None:
    receiving.begin(begin(length=0))
    receiving.complete(1)
    with pytest.raises(Misbehaved, match="where another one lies"):
        receiving.begin(begin(2))


def test_a_number_is_never_used_again(receiving: Receiving) -> None:
    receiving.begin(begin(length=0))
    receiving.complete(1)
    receiving.free(5, HOME.offset + 64)
    with pytest.raises(Misbehaved):
        receiving.begin(begin(1))


@pytest.mark.parametrize(("offset", "length"), [(1, 10), (50, 50), (0, 101), (0, 0), (2**64 - 1, 2), (100, 1)])
def test_pieces_come_in_order_and_stay_inside(receiving: Receiving, offset: int, length: int) -> None:
    receiving.begin(begin())
    with pytest.raises(Misbehaved):
        receiving.piece(1, offset, length)


def test_a_piece_does_not_come_twice(receiving: Receiving) -> None:
    receiving.begin(begin())
    feed(receiving, 1, 0, 60)
    with pytest.raises(Misbehaved):
        receiving.piece(1, 0, 60)


def test_pieces_of_a_transfer_that_never_began_are_a_lie_and_those_of_an_ended_one_are_late(
    receiving: Receiving,
) -> None:
    receiving.begin(begin())
    assert receiving.cancel(1)
    assert not receiving.cancel(1)
    assert receiving.piece(1, 0, 60) is None
    assert receiving.complete(1) is None
    lies: list[Callable[[], object]] = [
        lambda: receiving.piece(2, 0, 60),
        lambda: receiving.piece(0, 0, 60),
        lambda: receiving.cancel(2),
    ]
    for lie in lies:
        with pytest.raises(Misbehaved):
            lie()


def test_a_damaged_piece_has_one_more_chance_while_the_others_go_on(receiving: Receiving) -> None:
    receiving.begin(begin())
    assert receiving.piece(1, 0, 60) is not None
    assert receiving.spoilt(1, 0, 60) == Resend(1, 0, 60)
    feed(receiving, 1, 60, 40)
    assert receiving.complete(1) is None
    assert feed(receiving, 1, 0, 60) == HOME.offset + 64
    assert receiving.complete(1) is not None


@pytest.mark.parametrize("again", [(0, 60), (60, 40)], ids=["the same piece", "another piece"])
def test_a_second_damage_is_one_too_many(receiving: Receiving, again: tuple[int, int]) -> None:
    receiving.begin(begin())
    receiving.spoilt(1, 0, 60)
    receiving.piece(1, *again)
    assert receiving.spoilt(1, *again) is None


@pytest.mark.parametrize("piece", [(0, 59), (0, 61), (1, 59), (10, 10)])
def test_only_the_very_piece_is_sent_again(receiving: Receiving, piece: tuple[int, int]) -> None:
    receiving.begin(begin())
    receiving.spoilt(1, 0, 60)
    with pytest.raises(Misbehaved):
        receiving.piece(1, *piece)


def test_an_extent_goes_back_when_it_is_empty_and_only_then(receiving: Receiving) -> None:
    receiving.begin(begin())
    with pytest.raises(Misbehaved):
        receiving.give_back(5)
    receiving.cancel(1)
    receiving.give_back(5)
    with pytest.raises(Misbehaved):
        receiving.give_back(5)
    with pytest.raises(Misbehaved, match="not granted"):
        receiving.begin(begin(2))


def test_slots_are_bounded() -> None:
    receiving = Receiving()
    receiving.grant(replace(HOME, size=64 * (MAX_SLOTS + 2)))
    taken = [receiving.begin(begin(number, HOME.offset + 64 * number, length=0)) for number in range(1, MAX_SLOTS + 2)]
    assert taken == [True] * MAX_SLOTS + [False]
    assert receiving.piece(MAX_SLOTS + 1, 0, 5) is None, "its pieces are dropped"
    receiving.free(5, HOME.offset + 64)
    assert receiving.begin(begin(MAX_SLOTS + 2, length=0))
