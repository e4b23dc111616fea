"""Relays that know the token and lie: they are cut off, and have written nothing that was not theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.lab.liar import LyingPusher, LyingReceiver, lying_pusher, lying_receiver
from tests.lab.pods import MIB, Pod, Shape, eventually, memory_folder, noise, two_pods

from omni.relay.v1.peer_pb2 import PushMessage
from omni_common.arena.extents import Extent
from omni_common.errors import Cancelled
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_relay.core.allotment import Place
from omni_relay.core.choice import Choice, Why
from omni_relay.core.receiving import Begin, Resend
from omni_relay.core.sending import Want
from omni_relay.peers.messages import Ended, Freed, FromReceiver, Granted, Refused, Welcome
from omni_relay.wire.record import Kind

BLANK = 0x5A


@pytest.fixture
def shared() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def pods(shared: Path) -> Iterator[tuple[Pod, Pod]]:
    with two_pods(shared, Shape(size=16 * MIB)) as both:
        yield both


@pytest.fixture
def receiver(pods: tuple[Pod, Pod]) -> Pod:
    """All its extents are full of BLANK."""
    _, receiver = pods
    extents = receiver.arena.view[8192:]
    extents[:] = bytes([BLANK]) * len(extents)
    return receiver


def blank_but_for(pod: Pod, *written: tuple[int, int]) -> bool:
    for start, end in written:
        pod.arena.view[start:end] = bytes([BLANK]) * (end - start)
    extents = bytes(pod.arena.view[8192:])
    return extents.count(BLANK) == len(extents)


def message(**fields: int) -> PushMessage:
    """One of a single number: want=…, give_back=…, cancel=…"""
    made = PushMessage()
    for name, value in fields.items():
        part = getattr(made, name)
        setattr(part, part.DESCRIPTOR.fields[0].name, value)
    return made


Lie = Callable[[LyingPusher, Extent], None]

LIES: dict[str, Lie] = {
    "a grant that never was": lambda liar, home: liar.begin(1, home.index + 1, home.offset + 64, 10),
    "before the extent": lambda liar, home: liar.begin(1, home.index, home.offset, 10),
    "the arena's head": lambda liar, home: liar.begin(1, home.index, 0, 10),
    "after the extent": lambda liar, home: liar.begin(1, home.index, home.offset + home.size, 10),
    "beyond the extent's end": lambda liar, home: liar.begin(1, home.index, home.offset + 64, home.size),
    "an offset at the end of numbers": lambda liar, home: liar.begin(1, home.index, 2**64 - 64, 10),
    "a length at the end of numbers": lambda liar, home: liar.begin(1, home.index, home.offset + 64, 2**64 - 1),
    "beside a line": lambda liar, home: liar.begin(1, home.index, home.offset + 65, 10),
    "a number left out": lambda liar, home: liar.begin(2, home.index, home.offset + 64, 10),
    "no request": lambda liar, _: liar.say(PushMessage.FromString(b"\x22\x00")),
    "nothing at all": lambda liar, _: liar.say(PushMessage()),
    "no message": lambda liar, _: liar.sink.send(Kind.CONTROL, b"\xff" * 100),
    "hello again": lambda liar, _: liar.say(PushMessage.FromString(b"\x0a\x00")),
    "a want of nothing": lambda liar, _: liar.say(message(want=0)),
    "an extent of others": lambda liar, home: liar.say(message(give_back=home.index + 7)),
    "a piece of nothing": lambda liar, _: liar.piece(1, 0, b"x"),
    "the end of nothing": lambda liar, _: liar.say(message(cancel=5)),
}


@pytest.mark.parametrize("lie", LIES)
def test_who_lies_about_what_it_may_do_is_cut_off(pods: tuple[Pod, Pod], receiver: Pod, lie: str) -> None:
    sender, _ = pods
    with lying_pusher(receiver.address) as liar:
        home = liar.want(MIB)
        LIES[lie](liar, home)
        assert liar.is_cut()
    eventually(lambda: receiver.granted == 0, "its extents stay")
    assert blank_but_for(receiver)
    assert sender.push(receiver.address, noise(MIB)).reason is None


PIECES: dict[str, Lie] = {
    "the second before the first": lambda liar, _: liar.piece(1, 1000, bytes(1000)),
    "a gap": lambda liar, _: liar.pieces(1, (0, 1000), (1001, 999)),
    "twice the same": lambda liar, _: liar.pieces(1, (0, 1000), (0, 1000)),
    "beyond its end": lambda liar, _: liar.pieces(1, (0, 1999), (1999, 2)),
    "far beyond its end": lambda liar, _: liar.piece(1, 0, bytes(MIB)),
    "an offset at the end of numbers": lambda liar, _: liar.piece(1, 2**64 - 1, bytes(10)),
    "no bytes": lambda liar, _: liar.piece(1, 0, b""),
    "bytes that travel elsewhere": lambda liar, _: liar.piece(1, 0, bytes(1000), Kind.LANDED),
    "of another transfer": lambda liar, _: liar.piece(2, 0, bytes(1000)),
    "another begins where it lies": lambda liar, home: liar.begin(2, home.index, home.offset + 128, 5000),
    "another begins within it": lambda liar, home: liar.begin(2, home.index, home.offset + 1024, 5),
    "its extent goes back": lambda liar, home: liar.say(message(give_back=home.index)),
}


@pytest.mark.parametrize("lie", PIECES)
def test_who_sends_other_pieces_than_announced_is_cut_off(pods: tuple[Pod, Pod], receiver: Pod, lie: str) -> None:
    sender, _ = pods
    with lying_pusher(receiver.address) as liar:
        home = liar.want(MIB)
        liar.begin(1, home.index, home.offset + 128, 2000)
        PIECES[lie](liar, home)
        assert liar.is_cut()
    eventually(lambda: receiver.granted == 0, "its extents stay")
    assert blank_but_for(receiver, (home.offset + 128, home.offset + 128 + 2000))
    assert receiver.stage.seen == {}
    assert sender.push(receiver.address, noise(MIB)).reason is None


def test_a_second_want_of_a_kind_is_a_lie(receiver: Pod) -> None:
    with lying_pusher(receiver.address) as liar:
        receiver.stage.keeps = True
        while receiver.granted < 13:
            liar.want(MIB)
        liar.say(message(want=MIB))
        liar.say(message(want=MIB))
        assert liar.is_cut()


def test_a_space_that_was_returned_is_not_written_to_any_more(receiver: Pod) -> None:
    with lying_pusher(receiver.address) as liar:
        home = liar.want(MIB)
        liar.say(message(give_back=home.index))
        liar.begin(1, home.index, home.offset + 64, 10)
        assert liar.is_cut()
    assert blank_but_for(receiver)


def test_pieces_of_a_transfer_that_ended_are_late_and_go_nowhere(receiver: Pod) -> None:
    with lying_pusher(receiver.address) as liar:
        home = liar.want(MIB)
        liar.begin(1, home.index, home.offset + 64, 5000, consumer="nobody")
        liar.piece(1, 0, bytes(2500))
        liar.begin(2, home.index, home.offset + 64, 5000)
        liar.piece(2, 0, bytes(100))
        liar.say(message(cancel=2))
        liar.piece(2, 100, b"\x11" * 4900)
        liar.piece(1, 2500, bytes(2500))
        ended = [liar.hears(Ended) for _ in range(2)]
        assert [(end.number, end.error and end.error.reason) for end in ended] == [
            (1, "STAGE_UNAVAILABLE"),
            (2, "CANCELLED"),
        ]
        liar.begin(3, home.index, home.offset + 64, 100)
        liar.piece(3, 0, noise(100))
        place = Place(home.index, home.offset + 64)
        assert {liar.hears(object), liar.hears(object)} == {Ended(3, None), Freed(place)}, "in whichever order"
    assert list(receiver.stage.seen.values()) == [bytes(noise(100))]
    assert blank_but_for(receiver, (home.offset, home.offset + 64 + 128))


def test_an_unfinished_transfer_ends_with_its_connection_and_is_never_seen(receiver: Pod) -> None:
    with lying_pusher(receiver.address) as liar:
        home = liar.want(MIB)
        liar.begin(1, home.index, home.offset + 64, 2000)
        liar.piece(1, 0, bytes(1999))
    eventually(lambda: receiver.granted == 0, "its extents stay")
    assert receiver.stage.seen == {}
    assert blank_but_for(receiver, (home.offset + 64, home.offset + 64 + 1999))


@pytest.mark.parametrize("carriers", [(), ("pigeon",), ("nixl", "ucx")])
def test_who_offers_nothing_usable_is_told_so(receiver: Pod, carriers: tuple[str, ...]) -> None:
    liar = LyingPusher(receiver.address, carriers=carriers)
    liar.close()
    eventually(lambda: receiver.peers.connections == 0, "it stays")


def test_who_does_not_say_hello_first_is_cut_off(receiver: Pod) -> None:
    liar = LyingPusher(receiver.address, greet=False)
    liar.say(message(want=MIB))
    assert liar.is_cut()
    liar.close()


# What the receiving relay says


def granted(index: int = 0, size: int = MIB) -> Granted:
    return Granted(Extent(index, 1, 8192 + index * 4 * MIB, size))


ANSWERS: dict[str, tuple[FromReceiver, ...]] = {
    "a transfer ends that never began": (Ended(1, None),),
    "more space than was wanted": (granted(0), granted(1)),
    "less space than was wanted": (granted(0, 64),),
    "a refusal of what nobody wanted": (Refused(5),),
    "space comes free that nobody used": (Freed(Place(0, 8256)),),
    "a piece again of what never began": (Resend(1, 0, 10),),
    "another welcome": (Welcome(CONTRACT_VERSION, Choice("tcp", Why.PREFERRED), b""),),
}


@pytest.fixture
def sender(pods: tuple[Pod, Pod]) -> Pod:
    return pods[0]


@pytest.fixture
def liar() -> Iterator[LyingReceiver]:
    with lying_receiver() as made:
        yield made


@pytest.mark.parametrize("lie", ANSWERS)
def test_a_receiver_that_contradicts_itself_is_given_up(sender: Pod, liar: LyingReceiver, lie: str) -> None:
    pushed = sender.push(liar.address, noise(MIB - 64))
    caught = liar.welcome()
    assert isinstance(caught.hear(), Want)
    for answer in ANSWERS[lie]:
        caught.say(answer)
    assert pushed.reason == "STAGE_UNAVAILABLE"
    assert caught.is_cut()


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((Ended(1, None), Ended(1, None)), id="the same end twice"),
        pytest.param((Ended(1, Cancelled()), Freed(Place(0, 8256))), id="space that came free before"),
        pytest.param((Resend(1, 0, 5000), Resend(1, 0, 5000)), id="a piece a third time"),
        pytest.param((Resend(1, 1, 5000),), id="more than there is"),
        pytest.param((Freed(Place(0, 8256)), Ended(1, Cancelled())), id="an end after its space came free"),
    ],
)
def test_a_receiver_that_forgets_what_it_said_is_given_up(
    sender: Pod, liar: LyingReceiver, answers: tuple[FromReceiver, ...]
) -> None:
    pushed = sender.push(liar.address, noise(5000))
    caught = liar.welcome()
    assert isinstance(caught.hear(), Want)
    caught.say(granted())
    assert isinstance(caught.hear(), Begin)
    for answer in answers:
        caught.say(answer)
    assert caught.is_cut()
    pushed.wait()
    assert len(pushed.verdicts) == 1


@pytest.mark.parametrize(
    "welcome",
    [
        pytest.param(Welcome(99, Choice("tcp", Why.PREFERRED), b""), id="another contract"),
        pytest.param(
            Welcome(CONTRACT_VERSION, Choice("pigeon", Why.PREFERRED), b""), id="a carrier that was not offered"
        ),
        pytest.param(Welcome(CONTRACT_VERSION, None, b""), id="no carrier"),
    ],
)
def test_a_welcome_that_cannot_be_used(sender: Pod, liar: LyingReceiver, welcome: Welcome) -> None:
    pushed = sender.push(liar.address, noise(5000))
    liar.welcome(welcome)
    assert pushed.reason == "STAGE_UNAVAILABLE"
