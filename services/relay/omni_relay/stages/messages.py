"""The messages of pod.proto, read and written here and nowhere else. What the contract does not allow raises Cut."""

from __future__ import annotations

from dataclasses import dataclass

from omni.common.v1.tensor_pb2 import ArenaSlot, TransferId
from omni.relay.v1 import pod_pb2 as pb
from omni_common.arena.extents import Extent, parse_extent, render_extent
from omni_common.errors import InvalidRequest, OmniError
from omni_common.request import RequestKey
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert.envelope import parse_key, seconds_of
from omni_common.rpc.convert.failures import failure_of
from omni_relay.core.holders import SlotName
from omni_relay.ports import ArrivedTensor, PushResult, Transfer
from omni_relay.stages.line import Cut

# Bytes of a replica's name, an address, an edge; far above any that this project makes.
_MAX_NAME = 512


@dataclass(frozen=True, slots=True)
class Hello:
    """`arena` is the epoch of the arena that the stage has mapped, 0 for none; the rest lies in that one."""

    replica: str
    arena: int
    extents: tuple[Extent, ...]
    slots: tuple[SlotName, ...]


@dataclass(frozen=True, slots=True)
class PushRequest:
    """`remaining` in seconds."""

    transfer: Transfer
    slot: ArenaSlot
    length: int
    to: str
    consumer: str
    key: RequestKey
    remaining: float
    edge: str


def parse_hello(message: pb.StageHello) -> Hello:
    if message.contract_version != CONTRACT_VERSION:
        raise Cut(f"speaks contract version {message.contract_version}, and this relay {CONTRACT_VERSION}")
    try:
        extents = tuple(map(parse_extent, message.extents))
    except ValueError as error:
        raise Cut("claims extents that no arena has") from error
    return Hello(_name(message.replica), message.arena_epoch, extents, tuple(map(parse_slot, message.arrived)))


def parse_push(message: pb.Push) -> PushRequest:
    try:
        key = parse_key(message.key)
    except InvalidRequest as error:
        raise Cut("pushes for no request") from error
    return PushRequest(
        parse_transfer(message.transfer),
        message.slot,
        message.length,
        _name(message.to),
        _name(message.consumer),
        key,
        seconds_of(message.remaining),
        _name(message.edge),
    )


def parse_transfer(message: TransferId) -> Transfer:
    return Transfer(message.source, message.number)


def parse_slot(message: ArenaSlot) -> SlotName:
    return SlotName(message.extent, message.epoch, message.offset, message.generation)


def render_welcome(arena: int, address: str, extents: tuple[Extent, ...]) -> pb.RelayMessage:
    welcome = pb.RelayWelcome(
        contract_version=CONTRACT_VERSION,
        arena_epoch=arena,
        address=address,
        extents=map(render_extent, extents),
    )
    return pb.RelayMessage(welcome=welcome)


def render_granted(extent: Extent) -> pb.RelayMessage:
    return pb.RelayMessage(extent=render_extent(extent))


def render_refused(size: int) -> pb.RelayMessage:
    return pb.RelayMessage(refused=pb.ExtentRefused(size=size))


def render_ended(transfer: Transfer, result: PushResult) -> pb.RelayMessage:
    message = pb.RelayMessage()
    ended = message.ended  # filled in its place, which takes half the time: every tensor has one
    ended.transfer.source, ended.transfer.number = transfer.source, transfer.number
    ended.transport = result.transport
    if result.error is not None:
        ended.failure.CopyFrom(failure_of(result.error))
    return message


def render_failed(transfer: Transfer, error: OmniError) -> pb.RelayMessage:
    """Of a push that no transport has seen."""
    return render_ended(transfer, PushResult(error, ""))


def render_arrived(arrived: ArrivedTensor) -> pb.RelayMessage:
    message = pb.RelayMessage()
    told, extent = message.arrived, arrived.extent  # as in `render_ended`
    told.transfer.source, told.transfer.number = arrived.transfer.source, arrived.transfer.number
    told.slot.extent, told.slot.epoch = extent.index, extent.epoch
    told.slot.offset, told.slot.generation = arrived.offset, arrived.generation
    told.length = arrived.length
    told.key.request_id, told.key.attempt = arrived.key.request_id, arrived.key.attempt
    return message


def _name(name: str) -> str:
    if not 0 < len(name) <= _MAX_NAME:
        raise Cut("leaves out a name, or has one that is far too long")
    return name
