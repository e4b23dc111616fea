"""What relays say to each other, as bytes. Whatever the contract does not allow raises Misbehaved when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from omni.relay.v1.peer_pb2 import (
    BeginTransfer,
    CancelTransfer,
    PeerHello,
    PeerWelcome,
    PushMessage,
    ReplyMessage,
    ResendPiece,
    SpaceFreed,
    TransferEnded,
    TransportOffer,
)
from omni.relay.v1.pod_pb2 import ExtentRefused, ReturnExtent, WantExtent
from omni_common.arena.extents import Extent, parse_extent, render_extent
from omni_common.errors import InvalidRequest, OmniError
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert.envelope import duration_of, parse_key, seconds_of
from omni_common.rpc.convert.failures import error_of, failure_of
from omni_relay.core.allotment import Place
from omni_relay.core.choice import Choice, Why
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.receiving import Begin, Resend
from omni_relay.core.sending import CancelBegun, GiveBack, SendPiece, Want
from omni_relay.ports import PushOrder

# Names of stages and requests; far above any that this project makes.
_MAX_NAME = 1024
_MAX_OFFERS = 16


@dataclass(frozen=True, slots=True)
class Hello:
    """`carriers` are those that the pushing relay offers, the preferred one first."""

    version: int
    address: str
    carriers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """`choice` is None where the two have no carrier in common; `details` are those of the receiver's end of it."""

    version: int
    choice: Choice | None
    details: bytes


@dataclass(frozen=True, slots=True)
class Granted:
    extent: Extent


@dataclass(frozen=True, slots=True)
class Refused:
    size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """`error` is None when the consumer has the tensor."""

    number: int
    error: OmniError | None


@dataclass(frozen=True, slots=True)
class Freed:
    place: Place


FromPusher = Hello | Want | GiveBack | Begin | CancelBegun
FromReceiver = Welcome | Granted | Refused | Resend | Ended | Freed


def render_hello(address: str, carriers: Sequence[str]) -> bytes:
    offers = [TransportOffer(name=name) for name in carriers]
    hello = PeerHello(contract_version=CONTRACT_VERSION, address=address, transports=offers)
    return PushMessage(hello=hello).SerializeToString()


def render_begin(piece: SendPiece, order: PushOrder, now: float) -> bytes:
    message = PushMessage()
    begin = message.begin  # filled in its place, which takes half the time: every tensor has one
    begin.number = piece.number
    begin.transfer.source, begin.transfer.number = order.transfer.source, order.transfer.number
    begin.consumer = order.consumer
    begin.key.request_id, begin.key.attempt = order.key.request_id, order.key.attempt
    begin.remaining.CopyFrom(duration_of(order.deadline - now))
    begin.extent, begin.offset = piece.place.extent, piece.place.offset
    begin.length = len(order.data)
    return message.SerializeToString()


def render_push(unit: Want | GiveBack | CancelBegun) -> bytes:
    match unit:
        case Want(size):
            message = PushMessage(want=WantExtent(size=size))
        case GiveBack(extent):
            message = PushMessage(give_back=ReturnExtent(index=extent))
        case CancelBegun(number):
            message = PushMessage(cancel=CancelTransfer(number=number))
    return message.SerializeToString()


def parse_push(data: bytes, now: float) -> FromPusher:
    """`now` is this relay's clock, on which the time left becomes a moment."""
    message = PushMessage()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Misbehaved("sent a message that cannot be read") from error
    match message.WhichOneof("message"):
        case "hello":
            return _hello(message.hello)
        case "want":
            return Want(message.want.size)
        case "give_back":
            return GiveBack(message.give_back.index)
        case "begin":
            return _begin(message.begin, now)
        case "cancel":
            return CancelBegun(message.cancel.number)
        case None:
            raise Misbehaved("sent an empty message")


def render_reply(reply: FromReceiver) -> bytes:
    match reply:
        case Welcome():
            message = ReplyMessage(welcome=_welcome(reply))
        case Granted(extent):
            message = ReplyMessage(extent=render_extent(extent))
        case Refused(size):
            message = ReplyMessage(refused=ExtentRefused(size=size))
        case Resend(number, offset, length):
            message = ReplyMessage(resend=ResendPiece(number=number, offset=offset, length=length))
        case Ended(number, error):
            failure = None if error is None else failure_of(error)
            message = ReplyMessage(ended=TransferEnded(number=number, failure=failure))
        case Freed(place):
            message = ReplyMessage(freed=SpaceFreed(extent=place.extent, offset=place.offset))
    return message.SerializeToString()


def parse_reply(data: bytes) -> FromReceiver:
    message = ReplyMessage()
    try:
        message.ParseFromString(data)
        return _reply(message)
    except (DecodeError, ValueError, OverflowError) as error:
        raise Misbehaved("sent a message that cannot be read") from error


def _reply(message: ReplyMessage) -> FromReceiver:
    match message.WhichOneof("message"):
        case "welcome":
            return _parse_welcome(message.welcome)
        case "extent":
            return Granted(parse_extent(message.extent))
        case "refused":
            return Refused(message.refused.size)
        case "resend":
            return Resend(message.resend.number, message.resend.offset, message.resend.length)
        case "ended":
            ended = message.ended
            return Ended(ended.number, error_of(ended.failure) if ended.HasField("failure") else None)
        case "freed":
            return Freed(Place(message.freed.extent, message.freed.offset))
        case None:
            raise Misbehaved("sent an empty message")


def _hello(hello: PeerHello) -> Hello:
    offered = tuple(offer.name for offer in hello.transports)
    if len(hello.address) > _MAX_NAME or len(offered) > _MAX_OFFERS:
        raise Misbehaved("said more in its hello than there is to say")
    return Hello(hello.contract_version, hello.address, offered)


def _begin(begin: BeginTransfer, now: float) -> Begin:
    if len(begin.consumer) > _MAX_NAME or len(begin.key.request_id) > _MAX_NAME:
        raise Misbehaved("sent a name that is too long")
    try:
        key = parse_key(begin.key)
    except InvalidRequest as error:
        raise Misbehaved("began a transfer of no request") from error
    return Begin(
        number=begin.number,
        source=begin.transfer.source,
        source_number=begin.transfer.number,
        consumer=begin.consumer,
        key=key,
        expires=now + seconds_of(begin.remaining),
        extent=begin.extent,
        offset=begin.offset,
        length=begin.length,
    )


def _welcome(welcome: Welcome) -> PeerWelcome:
    if welcome.choice is None:
        return PeerWelcome(contract_version=welcome.version)
    offer = TransportOffer(name=welcome.choice.carrier, details=welcome.details)
    return PeerWelcome(contract_version=welcome.version, transport=offer, reason=welcome.choice.why)


def _parse_welcome(message: PeerWelcome) -> Welcome:
    chosen = message.HasField("transport")
    choice = Choice(message.transport.name, Why(message.reason)) if chosen else None
    return Welcome(message.contract_version, choice, message.transport.details)
