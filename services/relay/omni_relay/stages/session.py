"""What one stage asks of the relay, from its hello to the end of its line."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni.relay.v1 import pod_pb2 as pb
from omni_common.arena.extents import Extent
from omni_common.arena.memory import Arena
from omni_common.arena.reader import ArenaReader
from omni_common.clock import Clock
from omni_common.errors import OmniError, Overloaded, Reason
from omni_relay.core.holders import SlotName
from omni_relay.ports import ArrivedTensor, Pushers, PushOrder, PushResult, Transfer
from omni_relay.space import ArenaSpace
from omni_relay.stages.line import Cut, StageLine
from omni_relay.stages.messages import (
    Hello,
    PushRequest,
    parse_hello,
    parse_push,
    parse_slot,
    parse_transfer,
    render_arrived,
    render_ended,
    render_failed,
    render_granted,
    render_refused,
    render_welcome,
)
from omni_relay.stages.under_way import UnderWay

logger = logging.getLogger(__name__)

# Seconds that a line may take to say hello.
HELLO_TIMEOUT = 5.0

# Pushes of one stage that may be under way: what one costs beside its slot is small, but not nothing.
MAX_PUSHES = 4096

# Edges of one pod's stages that metrics tell apart: many times those of any pipeline, and a bound on what a stage that
# makes them up can claim of every scrape.
MAX_EDGES = 256


@dataclass(slots=True)
class Pod:
    """What the sessions of all stages share. `reader` holds the slots that are being pushed."""

    arena: Arena
    space: ArenaSpace
    reader: ArenaReader
    memory: memoryview
    """The arena as the ways to other pods know it: some move only what lies in memory that they have registered."""
    pushers: Pushers
    address: str
    clock: Clock
    under_way: UnderWay = field(default_factory=UnderWay)
    edges: set[str] = field(default_factory=set)
    draining: bool = False

    def label(self, edge: str) -> str:
        if edge in self.edges or len(self.edges) < MAX_EDGES:
            self.edges.add(edge)
            return edge
        return "other"


class Register(Protocol):
    """Who is here, by name."""

    def enter(self, session: StageSession, hello: Hello) -> None:
        """Takes the place of any other session of that name and says welcome."""

    def leave(self, session: StageSession) -> None:
        """Unless another has taken its place."""


class StageSession:
    """One line. `run` is its thread; as a ports.Grantee and for what arrives it is told by any thread."""

    def __init__(self, line: StageLine, pod: Pod, register: Register) -> None:
        self.line = line
        self.replica = ""
        self._pod = pod
        self._register = register
        # The view of each is what holds its slot.
        self._pushes: dict[Transfer, memoryview] = {}

    def run(self) -> None:
        """Until the line ends, which is how a stage's death shows; a stage that lies ends it too."""
        try:
            self._converse()
        except Cut as cut:
            logger.warning("a stage is cut off", extra={**self._facts(), "why": f"it {cut}"})
        finally:
            self.line.shut()
            self._register.leave(self)
            for transfer in tuple(self._pushes):
                self._pod.pushers.cancel(transfer)
            self.line.close()

    # ports.Grantee

    def granted(self, extent: Extent) -> None:
        self.line.send(render_granted(extent))

    def refused(self, size: int) -> None:
        self.line.send(render_refused(size))

    def freed(self, extent: int, offset: int) -> None:
        """Never: a stage frees what it allocates itself."""

    # What it is handed

    def welcome(self, extents: tuple[Extent, ...]) -> None:
        self.line.send(render_welcome(self._pod.arena.epoch, self._pod.address, extents))

    def arrived(self, arrived: ArrivedTensor) -> bool:
        return self.line.send(render_arrived(arrived))

    # What it says

    def _converse(self) -> None:
        hello = self._hello()
        if hello is None:
            return
        self.replica = hello.replica
        self.line.expect(None)  # a stage may have nothing to say for days
        self._register.enter(self, hello)
        logger.info("a stage has come", extra=self._facts())
        while (message := self.line.receive()) is not None:
            self._hear(message)
        logger.info("a stage has gone", extra=self._facts())

    def _hello(self) -> Hello | None:
        self.line.expect(HELLO_TIMEOUT)
        try:
            message = self.line.receive()
        except TimeoutError as error:
            raise Cut("says nothing") from error
        if message is None:
            return None
        if not message.HasField("hello"):
            raise Cut("does not say hello first")
        return parse_hello(message.hello)

    def _hear(self, message: pb.StageMessage) -> None:
        match message.WhichOneof("message"):
            case "push":
                self._push(parse_push(message.push))
            case "release":
                self._release(message.release)
            case "want":
                self._pod.space.want_for_stage(self.replica, message.want.size)
            case "give_back":
                if not self._pod.space.give_back_of_stage(self.replica, message.give_back.index):
                    raise Cut("gives back an extent that is not its own")
            case "cancel":
                self._cancel(parse_transfer(message.cancel.transfer))
            case _:
                raise Cut("says hello twice")

    def _push(self, push: PushRequest) -> None:
        if not self._pod.space.is_of_stage(self.replica, parse_slot(push.slot), push.length):
            raise Cut("pushes out of an extent that is not its own")
        if not self._pod.under_way.add(push.transfer):
            raise Cut("pushes one transfer twice")
        try:
            held = self._hold(push.slot, push.length)
        except OmniError as error:
            self._pod.under_way.remove(push.transfer)
            self.line.send(render_failed(push.transfer, error))
            return
        self._pushes[push.transfer] = held
        start = push.slot.offset
        order = PushOrder(
            transfer=push.transfer,
            data=self._pod.memory[start : start + push.length],
            to=push.to,
            consumer=push.consumer,
            key=push.key,
            deadline=self._pod.clock() + push.remaining,
            edge=self._pod.label(push.edge),
        )
        self._pod.pushers.submit(order, partial(self._ended, push.transfer))

    def _hold(self, slot: ArenaSlot, length: int) -> memoryview:
        """The bytes, which nobody reuses while they are looked at, whatever becomes of the stage. Raises OmniError."""
        if self._pod.draining:
            raise OmniError(Reason.STAGE_UNAVAILABLE, "The relay is stopping and pushes nothing more.")
        if len(self._pushes) >= MAX_PUSHES:
            raise Overloaded("The relay has as many pushes of this stage under way as it may.")
        return self._pod.reader.lend(slot, length, _nobody_waits)

    def _ended(self, transfer: Transfer, result: PushResult) -> None:
        """From any thread."""
        if self._pushes.pop(transfer, None) is None:
            logger.error("a push ended twice", extra=self._facts())
            return
        self._pod.under_way.remove(transfer)
        self.line.send(render_ended(transfer, result))

    def _cancel(self, transfer: Transfer) -> None:
        if transfer in self._pushes:
            self._pod.pushers.cancel(transfer)

    def _release(self, message: pb.ReleaseArrived) -> None:
        for slot in message.slots:
            if not self._pod.space.release(self.replica, parse_slot(slot)):
                raise Cut("releases a tensor that is not its own")

    def _facts(self) -> dict[str, str]:
        return {"replica": self.replica or "unknown"}


def claims_of(hello: Hello, arena: Arena) -> tuple[tuple[Extent, ...], tuple[SlotName, ...]]:
    """What a hello claims of this very arena: nothing, if the stage has another one mapped."""
    return (hello.extents, hello.slots) if hello.arena == arena.epoch else ((), ())


def _nobody_waits(_slot: ArenaSlot) -> None:
    """The stage hears of the end by PushEnded."""
