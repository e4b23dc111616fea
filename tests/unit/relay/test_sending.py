"""A pushing core against a receiving one, over lines that keep their order and lose everything at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omni_common.arena.extents import Extent
from omni_common.errors import Cancelled, DataCorrupted, OmniError, Reason
from omni_common.request import RequestKey
from omni_relay.core.allotment import IDLE, Place
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.receiving import Begin, Receiving, Resend
from omni_relay.core.sending import STANDSTILL, CancelBegun, GiveBack, Sending, SendPiece, Unit, Want

A, B = RequestKey("a"), RequestKey("b")
HOME = Extent(0, 1, 8192, 1 << 20)
FOREVER = 1000.0


def opened(*extents: Extent) -> Sending:
    sending = Sending(piece=1000)
    sending.open(0.0)
    for extent in extents:
        sending.submit(-1, A, extent.size - 64, deadline=FOREVER, now=0.0)
        assert sending.next() == Want(extent.size)
        sending.cancel(-1)
        assert [name for name, _ in sending.take_ended()] == [-1]
        sending.granted(extent, 0.0)
    return sending


def piece(sending: Sending) -> SendPiece:
    """The next one, after what else there is to say."""
    while not isinstance(unit := sending.next(), SendPiece):
        assert unit is not None
    return unit


def reasons(sending: Sending) -> dict[int, Reason | None]:
    return {name: None if error is None else error.reason for name, error in sending.take_ended()}


def test_a_push_waits_for_space_and_ends_with_the_word_of_the_other_relay() -> None:
    sending = opened()
    sending.submit(1, A, 1500, deadline=FOREVER, now=1.0)
    assert sending.next() == Want(64 + 1536)
    assert sending.next() is None
    sending.granted(HOME, 3.0)
    first = piece(sending)
    assert first == SendPiece(1, 1, Place(0, 8192 + 64), 0, 1000, begins=True, waited=2.0)
    sending.sent(1, 3.0)
    second = piece(sending)
    assert (second.offset, second.length, second.begins) == (1000, 500, False)
    sending.sent(1, 3.0)
    assert sending.idle
    assert sending.take_ended() == []
    sending.answered(1, None, 4.0)
    assert sending.take_ended() == [(1, None)]
    assert sending.live == sending.unanswered == 0


def test_a_cancelled_push_is_told_while_its_space_waits_for_the_other_relay() -> None:
    sending = opened(HOME)
    sending.submit(1, A, HOME.size - 64, deadline=FOREVER, now=0.0)
    piece(sending)
    sending.sent(1, 0.0)
    sending.cancel(1)
    assert reasons(sending) == {1: Reason.CANCELLED}
    sending.submit(2, B, HOME.size - 64, deadline=FOREVER, now=0.0)
    assert sending.next() == CancelBegun(1)
    assert sending.next() == Want(HOME.size), "what the cancelled one has is not free yet"
    sending.answered(1, Cancelled(), 0.0)
    assert piece(sending).push == 2
    assert reasons(sending) == {}


def test_nobody_is_told_while_a_piece_is_being_read() -> None:
    sending = opened(HOME)
    sending.submit(1, A, 5000, deadline=FOREVER, now=0.0)
    piece(sending)
    sending.cancel(1)
    sending.answered(1, DataCorrupted(), 0.0)
    sending.lose(OmniError(Reason.STAGE_UNAVAILABLE, "Lost."))
    assert sending.take_ended() == []
    sending.sent(1, 0.0)
    assert reasons(sending) == {1: Reason.CANCELLED}, "the first verdict stands"


def test_one_cancelled_before_it_began_is_never_announced() -> None:
    sending = opened(HOME)
    sending.submit(1, A, 5000, deadline=FOREVER, now=0.0)
    sending.submit(2, B, 500, deadline=FOREVER, now=0.0)
    sending.cancel(1)
    assert (piece(sending).push, sending.next()) == (2, None)


def test_a_late_push_ends_wherever_it_is() -> None:
    sending = opened(HOME)
    sending.submit(1, A, 1500, deadline=5.0, now=0.0)
    piece(sending)
    sending.sent(1, 0.0)
    sending.submit(2, B, 1 << 30, deadline=5.0, now=4.5)
    sending.submit(3, B, 10, deadline=6.0, now=4.5)
    sending.expire(4.9)
    assert reasons(sending) == {}
    sending.expire(5.0)
    assert reasons(sending) == {1: Reason.DEADLINE_EXCEEDED, 2: Reason.DEADLINE_EXCEEDED}
    sending.submit(4, A, 10, deadline=5.0, now=5.0)
    assert reasons(sending) == {4: Reason.DEADLINE_EXCEEDED}


def test_who_waits_while_nothing_comes_free_goes_another_way() -> None:
    sending = opened(HOME)
    sending.submit(1, A, HOME.size - 64, deadline=FOREVER, now=0.0)
    sending.submit(2, B, HOME.size - 64, deadline=FOREVER, now=0.0)
    sending.expire(STANDSTILL - 0.1)
    sending.answered(piece_number(sending), None, STANDSTILL - 0.1)
    sending.freed(Place(0, 8192 + 64), STANDSTILL - 0.1)
    assert reasons(sending) == {1: None}
    sending.submit(3, A, HOME.size - 64, deadline=FOREVER, now=STANDSTILL)
    sending.expire(2 * STANDSTILL - 0.2)
    assert reasons(sending) == {}, "something came free not long ago"
    sending.expire(2 * STANDSTILL)
    assert reasons(sending) == {3: Reason.OVERLOADED}


def test_nothing_stands_still_while_a_transfer_is_under_way_however_slowly() -> None:
    sending = opened(HOME)
    sending.submit(1, A, HOME.size - 64, deadline=FOREVER, now=0.0)
    sending.submit(2, B, HOME.size - 64, deadline=FOREVER, now=0.0)
    number = piece_number(sending)
    for turn in range(1, 20):
        sending.expire(turn * STANDSTILL)
    assert reasons(sending) == {}
    sending.answered(number, None, 20 * STANDSTILL)
    sending.expire(21 * STANDSTILL)
    assert reasons(sending) == {1: None, 2: Reason.OVERLOADED}


def piece_number(sending: Sending) -> int:
    """Of the next transfer, all of whose pieces are sent."""
    first = piece(sending)
    sending.sent(first.push, 0.0)
    while not sending.idle:
        unit = sending.next()
        if isinstance(unit, SendPiece):
            sending.sent(unit.push, 0.0)
    return first.number


def test_nobody_stands_still_before_the_connection_is_there() -> None:
    sending = Sending()
    sending.submit(1, A, 10, deadline=FOREVER, now=0.0)
    sending.expire(STANDSTILL * 5)
    assert reasons(sending) == {}
    sending.open(STANDSTILL * 5)
    sending.expire(STANDSTILL * 6)
    assert reasons(sending) == {1: Reason.OVERLOADED}


def test_a_lost_connection_ends_everything_and_what_comes_after_it() -> None:
    sending = opened(HOME)
    for name, length in ((1, 10), (2, 5000), (3, 1 << 30)):
        sending.submit(name, A, length, deadline=FOREVER, now=0.0)
    sending.sent(piece(sending).push, 0.0)
    gone = OmniError(Reason.STAGE_UNAVAILABLE, "Lost.")
    sending.lose(gone)
    sending.submit(4, A, 10, deadline=FOREVER, now=0.0)
    assert sending.take_ended() == [(name, gone) for name in (1, 2, 3, 4)]
    assert sending.next() is None
    assert sending.live == 0


def test_a_space_may_come_back_before_the_word_that_its_transfer_has_ended() -> None:
    sending = opened(HOME)
    sending.submit(1, A, HOME.size - 64, deadline=FOREVER, now=0.0)
    number = piece_number(sending)
    sending.freed(Place(0, 8192 + 64), 0.0)
    sending.answered(number, None, 0.0)
    assert reasons(sending) == {1: None}
    sending.submit(2, A, HOME.size - 64, deadline=FOREVER, now=0.0)
    assert piece(sending).place == Place(0, 8192 + 64)


def test_a_relay_that_contradicts_itself_is_not_believed() -> None:
    sending = opened(HOME)
    sending.submit(1, A, 1500, deadline=FOREVER, now=0.0)
    number = piece_number(sending)
    sending.resend(number, 0, 1000)
    lies: list[Callable[[], object]] = [
        lambda: sending.resend(number, 0, 1000),
        lambda: sending.resend(number + 1, 0, 1000),
        lambda: sending.answered(number + 1, None, 0.0),
        lambda: sending.freed(Place(0, 8192), 0.0),
    ]
    for lie in lies:
        with pytest.raises(Misbehaved):
            lie()


def test_a_lie_about_space_is_seen_when_it_is_told_not_by_the_thread_that_sends() -> None:
    place = Place(0, 8192 + 64)
    sending = opened(HOME)
    sending.submit(1, A, 500, deadline=FOREVER, now=0.0)
    first = piece(sending)
    sending.submit(2, A, 500, deadline=FOREVER, now=0.0)
    with pytest.raises(Misbehaved):
        sending.freed(Place(0, place.offset + 64 + 512), 0.0)  # nothing of it has been sent
    sending.cancel(2)
    sending.answered(first.number, Cancelled(), 0.0)
    with pytest.raises(Misbehaved):
        sending.freed(place, 0.0)
    sending.sent(1, 0.0)
    assert reasons(sending) == {1: Reason.CANCELLED, 2: Reason.CANCELLED}


def test_a_transfer_whose_space_came_free_was_delivered() -> None:
    sending = opened(HOME)
    sending.submit(1, A, 500, deadline=FOREVER, now=0.0)
    first = piece(sending)
    sending.freed(first.place, 0.0)
    with pytest.raises(Misbehaved):
        sending.answered(first.number, Cancelled(), 0.0)
    sending.sent(1, 0.0)
    assert reasons(sending) == {}


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1001), (1000, 501), (1500, 1), (2**63, 1)])
def test_only_what_was_sent_is_sent_again(offset: int, length: int) -> None:
    sending = opened(HOME)
    sending.submit(1, A, 1500, deadline=FOREVER, now=0.0)
    number = piece_number(sending)
    with pytest.raises(Misbehaved):
        sending.resend(number, offset, length)


class RelaysMachine(RuleBasedStateMachine):
    """Two relays. What each says to the other stands in a line until a rule has it heard."""

    SPACE = 16 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.names = count(1)
        self.indices = count()
        self.ended: dict[int, OmniError | None] = {}
        self.submitted: set[int] = set()
        self.cancelled: set[int] = set()
        self.delivered: set[int] = set()
        self.in_hand: SendPiece | None = None
        self.connect()

    def connect(self) -> None:
        self.sending = Sending(piece=700)
        self.sending.open(self.now)
        self.receiving = Receiving()
        self.granted = 0
        self.wants: list[int] = []
        self.extents: dict[int, Extent] = {}
        self.numbers: dict[int, int] = {}
        self.slots: list[Begin] = []
        self.lengths: dict[int, int] = {}
        self.out: deque[tuple[Unit, bool]] = deque()
        self.back: deque[Extent | Place | Resend | tuple[int, OmniError | None]] = deque()

    # What the pod of the pushing relay does

    @rule(request=st.integers(0, 2), length=st.integers(0, 3000), patience=st.sampled_from([3.0, 1000.0]))
    def submit(self, request: int, length: int, patience: float) -> None:
        name = next(self.names)
        self.submitted.add(name)
        self.lengths[name] = length
        self.sending.submit(name, RequestKey(str(request)), length, deadline=self.now + patience, now=self.now)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.submitted)))
        self.cancelled.add(name)
        self.sending.cancel(name)

    @rule(seconds=st.sampled_from([0.25, STANDSTILL, IDLE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.sending.expire(self.now)

    # What goes over the lines

    @precondition(lambda self: self.in_hand is None)
    @rule(sound=st.sampled_from([True, True, True, False]))
    def begin_to_send(self, sound: bool) -> None:
        unit = self.sending.next()
        if unit is None:
            return
        self.out.append((unit, sound))
        if isinstance(unit, SendPiece):
            assert unit.push not in self.ended, "nothing of a push is read after its end"
            self.numbers.setdefault(unit.number, unit.push)
            self.in_hand = unit

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def end_to_send(self) -> None:
        assert self.in_hand is not None
        name, self.in_hand = self.in_hand.push, None
        self.sending.sent(name, self.now)

    @precondition(lambda self: self.out)
    @rule()
    def hear_the_pusher(self) -> None:
        unit, sound = self.out.popleft()
        match unit:
            case Want(size):
                self.wants.append(size)
            case GiveBack(extent):
                self.receiving.give_back(extent)
                self.granted -= self.extents.pop(extent).size
            case CancelBegun(number):
                if self.receiving.cancel(number):
                    self.back.append((number, Cancelled()))
            case SendPiece():
                self.catch(unit, sound)

    @precondition(lambda self: self.wants)
    @rule(more=st.integers(0, 30))
    def grant(self, more: int) -> None:
        size = self.wants[0] + 64 * more
        if self.granted + size > self.SPACE:
            return
        self.wants.pop(0)
        index = next(self.indices)
        extent = self.extents[index] = Extent(index, index + 1, 8192 + index * self.SPACE, size)
        self.granted += size
        self.receiving.grant(extent)
        self.back.append(extent)

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = self.slots.pop(data.draw(st.integers(0, len(self.slots) - 1)))
        assert self.receiving.free(slot.extent, slot.offset)
        self.back.append(Place(slot.extent, slot.offset))

    @precondition(lambda self: self.back)
    @rule()
    def hear_the_receiver(self) -> None:
        match self.back.popleft():
            case Extent() as extent:
                self.sending.granted(extent, self.now)
            case Place() as place:
                self.sending.freed(place, self.now)
            case Resend(number, offset, length):
                self.sending.resend(number, offset, length)
            case (number, error):
                self.sending.answered(number, error, self.now)

    @rule()
    def lose_the_connection(self) -> None:
        self.sending.lose(OmniError(Reason.STAGE_UNAVAILABLE, "Lost."))
        if self.in_hand is not None:
            self.end_to_send()
        self.collect()
        assert self.submitted == self.ended.keys()
        self.connect()

    def catch(self, unit: SendPiece, sound: bool) -> None:
        number = unit.number
        if unit.begins:
            length = self.lengths[unit.push]
            key = RequestKey(str(unit.push))
            begin = Begin(number, 0, unit.push, "", key, 0.0, unit.place.extent, unit.place.offset, length)
            assert self.receiving.begin(begin)
        if unit.length:
            if self.receiving.piece(number, unit.offset, unit.length) is None:
                return
            if not sound:
                self.hear_damage(unit)
                return
            self.receiving.sound(number, unit.offset, unit.length)
        if (slot := self.receiving.complete(number)) is not None:
            self.delivered.add(self.numbers[number])
            self.slots.append(slot.begin)
            self.back.append((number, None))

    def hear_damage(self, unit: SendPiece) -> None:
        if (resend := self.receiving.spoilt(unit.number, unit.offset, unit.length)) is not None:
            self.back.append(resend)
        elif self.receiving.cancel(unit.number):
            self.back.append((unit.number, DataCorrupted()))

    def collect(self) -> None:
        for name, error in self.sending.take_ended():
            assert name not in self.ended, "a push ends once"
            assert self.in_hand is None or self.in_hand.push != name, "no push ends while it is read"
            assert error is not None or name in self.delivered
            self.ended[name] = error

    @invariant()
    def every_push_ends_once_and_is_believed_only_when_delivered(self) -> None:
        self.collect()
        untold = len(self.submitted - self.ended.keys()) - self.sending.live
        assert untold in ((0, 1) if self.in_hand is not None else (0,))

    def teardown(self) -> None:
        """Left alone, everything ends, and everything comes back."""
        for _ in range(2000):
            if self.in_hand is not None:
                self.end_to_send()
            self.begin_to_send(sound=True)
            while self.out:
                self.hear_the_pusher()
            while self.slots:
                slot = self.slots.pop()
                self.receiving.free(slot.extent, slot.offset)
                self.back.append(Place(slot.extent, slot.offset))
            if self.wants:
                self.grant(more=0)
            while self.back:
                self.hear_the_receiver()
            self.wait(0.1)
            self.collect()
            if self.submitted == self.ended.keys() and self.sending.held == 0 and self.sending.idle:
                break
        assert self.submitted == self.ended.keys()
        assert (self.sending.held, self.sending.unanswered, self.sending.live) == (0, 0, 0)
        assert self.receiving.unfinished == 0
        assert self.extents == {}


TestRelays = RelaysMachine.TestCase
TestRelays.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
