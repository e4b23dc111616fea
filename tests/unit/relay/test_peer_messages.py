"""What relays say to each other, as bytes and back; and what is no such thing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.relay.v1.peer_pb2 import PushMessage, ReplyMessage
from omni_common.arena.extents import Extent
from omni_common.errors import Overloaded
from omni_common.request import RequestKey
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_relay.core.allotment import Place
from omni_relay.core.choice import Choice, Why
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.receiving import Begin, Resend
from omni_relay.core.sending import CancelBegun, GiveBack, SendPiece, Want
from omni_relay.peers.messages import (
    Ended,
    Freed,
    FromReceiver,
    Granted,
    Hello,
    Refused,
    Welcome,
    parse_push,
    parse_reply,
    render_begin,
    render_hello,
    render_push,
    render_reply,
)
from omni_relay.ports import PushOrder, Transfer

BIG = 2**64 - 1


@pytest.mark.parametrize("unit", [Want(1), Want(BIG), GiveBack(0), GiveBack(1015), CancelBegun(BIG)])
def test_what_a_pusher_says_is_understood(unit: Want | GiveBack | CancelBegun) -> None:
    assert parse_push(render_push(unit), 0.0) == unit


def test_a_hello_names_what_is_offered() -> None:
    hello = render_hello("relay-a:7080", ["ucx", "tcp"])
    assert parse_push(hello, 0.0) == Hello(CONTRACT_VERSION, "relay-a:7080", ("ucx", "tcp"))


def test_the_time_left_becomes_a_moment_on_the_other_clock() -> None:
    order = PushOrder(
        Transfer(BIG, 3), memoryview(bytes(10)), "b:1", "talker-0", RequestKey("r", 2), deadline=107.5, edge="a>b"
    )
    piece = SendPiece(1, 5, Place(7, 8256), 0, 10, begins=True, waited=0.0)
    begin = parse_push(render_begin(piece, order, now=100.0), now=5000.0)
    assert begin == Begin(5, BIG, 3, "talker-0", RequestKey("r", 2), 5007.5, 7, 8256, 10)


@pytest.mark.parametrize(
    "reply",
    [
        Welcome(CONTRACT_VERSION, Choice("tcp", Why.FALLBACK), b"details"),
        Welcome(CONTRACT_VERSION, None, b""),
        Granted(Extent(3, BIG, 8192, 64)),
        Refused(BIG),
        Resend(1, 2, 3),
        Ended(4, None),
        Freed(Place(5, 8256)),
    ],
)
def test_what_a_receiver_says_is_understood(reply: FromReceiver) -> None:
    assert parse_reply(render_reply(reply)) == reply


def test_a_failure_keeps_its_reason() -> None:
    found = parse_reply(render_reply(Ended(4, Overloaded("No room."))))
    assert isinstance(found, Ended)
    assert found.error is not None
    assert (found.error.reason, found.error.message, found.error.retry_after) == (
        "OVERLOADED",
        "No room.",
        timedelta(seconds=1),
    )


def push(change: Callable[[PushMessage], object]) -> bytes:
    message = PushMessage()
    message.begin.key.request_id = "r"
    change(message)
    return message.SerializeToString()


def reply(change: Callable[[ReplyMessage], object]) -> bytes:
    message = ReplyMessage()
    change(message)
    return message.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        push(lambda message: message.begin.ClearField("key")),
        push(lambda message: setattr(message.begin, "consumer", "x" * 2000)),
        push(lambda message: setattr(message.begin.key, "request_id", "x" * 2000)),
        push(lambda message: setattr(message.hello, "address", "x" * 2000)),
        push(lambda message: [message.hello.transports.add(name="tcp") for _ in range(17)]),
    ],
)
def test_what_no_pusher_says(data: bytes) -> None:
    with pytest.raises(Misbehaved):
        parse_push(data, 0.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        reply(lambda message: setattr(message.extent, "index", 5)),
        reply(lambda message: setattr(message.extent, "index", 2**32 - 1)),
        reply(lambda message: setattr(message.welcome.transport, "name", "tcp")),
        reply(lambda message: setattr(message.ended.failure.retry_after, "seconds", 2**62)),
    ],
)
def test_what_no_receiver_says(data: bytes) -> None:
    with pytest.raises(Misbehaved):
        parse_reply(data)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_understood_or_refused(data: bytes) -> None:
    for parse in (parse_reply, lambda data: parse_push(data, 0.0)):
        with contextlib.suppress(Misbehaved):
            parse(data)


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1), st.integers(min_value=-(2**31), max_value=2**31 - 1))
def test_no_duration_is_too_long_for_us(seconds: int, nanos: int) -> None:
    begin = PushMessage()
    begin.begin.key.request_id = "r"
    begin.begin.remaining.seconds, begin.begin.remaining.nanos = seconds, nanos
    assert isinstance(parse_push(begin.SerializeToString(), 1.0), Begin)
    ended = ReplyMessage()
    ended.ended.failure.retry_after.seconds, ended.ended.failure.retry_after.nanos = seconds, nanos
    with contextlib.suppress(Misbehaved):
        assert isinstance(parse_reply(ended.SerializeToString()), Ended)
