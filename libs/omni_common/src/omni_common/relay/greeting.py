"""The first words of a stage and its relay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import anyio
from google.protobuf.message import DecodeError

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni.relay.v1 import pod_pb2
from omni_common.arena.extents import render_extent
from omni_common.relay.packets import LineLost, PacketLine
from omni_common.relay.share import Share
from omni_common.rpc.contract import CONTRACT_VERSION

MAX_CLAIMS = 500
"""Arrived tensors that a hello has room for beside a thousand extents, at some 40 bytes each."""

# Seconds from a connection to its welcome: the relay has nothing else to do first.
_WELCOME = 5.0


class CannotConnect(Exception):
    """Why this process cannot reach its pod's relay: a sentence."""


@dataclass(frozen=True, slots=True)
class Who:
    """Whose line it is."""

    pipeline: str
    stage: str
    replica: str


def render_hello(who: Who, share: Share, arrived: Iterable[ArenaSlot]) -> pod_pb2.StageHello:
    """`arrived`: at most MAX_CLAIMS tensors that are not returned."""
    hello = pod_pb2.StageHello(
        contract_version=CONTRACT_VERSION,
        pipeline=who.pipeline,
        stage=who.stage,
        replica=who.replica,
        arena_epoch=share.epoch,
        arrived=arrived,
    )
    if share.epoch:
        hello.extents.extend(render_extent(extent) for extent in share.slots.extents)
    return hello


async def greet(line: PacketLine, hello: pod_pb2.StageHello) -> tuple[pod_pb2.RelayWelcome, list[pod_pb2.RelayMessage]]:
    """The relay's answer, and what came after it. Raises LineLost, and CannotConnect where another try is of no use."""
    line.send(pod_pb2.StageMessage(hello=hello).SerializeToString())
    packets: list[bytes] = []
    with anyio.move_on_after(_WELCOME):
        packets = await line.receive()
    if not packets:
        raise LineLost("it says nothing")
    first, *rest = map(parse, packets)
    if not first.HasField("welcome"):
        raise LineLost("its first word is no welcome")
    if (theirs := first.welcome.contract_version) != CONTRACT_VERSION:
        raise CannotConnect(f"The pod's relay speaks contract {theirs}, not {CONTRACT_VERSION}.")
    return first.welcome, rest


def parse(packet: bytes) -> pod_pb2.RelayMessage:
    """Raises LineLost."""
    try:
        return pod_pb2.RelayMessage.FromString(packet)
    except DecodeError as error:
        raise LineLost("it does not speak the contract") from error
