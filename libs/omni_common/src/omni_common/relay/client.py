"""A stage's line to its pod's relay: space in the arena, pushes to other pods, and what arrives from there.

Through the line's life and death: in-pod traffic needs the arena only, so it goes on while there is no relay. Pushes
under way when the line is lost have failed, and so do new ones until it is back; their tensors take the next way. A
relay that comes back finds the arena as it was, and hears in the hello which extents and which arrived tensors are
still this process's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
from google.protobuf.message import DecodeError

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena import Arena, ArenaReader, ArenaWriter, HoldTable, HoldTables
from omni_common.arena.extents import parse_extent, render_extent
from omni_common.arena.reader import Released
from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.errors import InvalidRequest, LeaseLost, OmniError, Reason
from omni_common.relay.dial import dial
from omni_common.relay.packets import LineLost, PacketLine
from omni_common.relay.slots import Slots
from omni_common.relay.wants import Wants
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert import error_of, seconds_of
from omni_common.rpc.dialer import Backoff
from omni_common.telemetry import names
from omni_common.tensor import Tensor

logger = logging.getLogger(__name__)

# Seconds between two looks at what has expired, and that nobody looks at any more.
UPKEEP = 0.25

# Seconds without a want for space after which empty extents go back, one by one: a burst's next wave finds them here.
IDLE = 5.0

# Seconds beyond its deadline after which a push that has not ended says that the relay hangs.
OVERDUE = 5.0

# Seconds from a connection to its welcome: the relay has nothing else to do first.
WELCOME = 5.0

# Arrived slots that a hello has room for beside a thousand extents, at some 40 bytes each.
_CLAIMS = 500


class CannotConnect(Exception):
    """Why this process cannot reach its pod's relay: a sentence."""


@dataclass(frozen=True, slots=True)
class Who:
    """Whose line it is."""

    pipeline: str
    stage: str
    replica: str


@dataclass(frozen=True, slots=True)
class PushResult:
    """How a push ended: `error` is None when the consumer has the tensor, `transport` as metrics name it. Not `quiet`:
    the line was lost, and a relay that lives on without it may still read the slot."""

    error: OmniError | None
    transport: str = ""
    quiet: bool = True


Ended = Callable[[PushResult], None]
Arrival = Callable[[pod_pb2.Arrived], None]


@dataclass(frozen=True, slots=True)
class _Push:
    ended: Ended
    overdue: float


class RelayClient:
    """This process's line to its pod's relay. Belongs to the event loop; only `slots` is for all threads.

    `connect` once, before anything else; then `run` for as long as the process lives.
    """

    def __init__(self, folder: Path, who: Who, clock: Clock = monotonic) -> None:
        self.source = secrets.randbits(64) or 1
        """Names this process in the transfers that it begins."""
        self.address = ""
        """host:port where the relays of other pods reach this pod's."""
        self.slots: Slots
        self._folder = folder
        self._who = who
        self._clock = clock
        self._arena: Arena | None = None
        self._reader: ArenaReader
        self._line: PacketLine | None = None
        self._pushes: dict[int, _Push] = {}
        self._arrived: dict[tuple[int, int], ArenaSlot] = {}
        self._wants = Wants()
        self._last_want = clock()
        self._on_arrival: Arrival | None = None
        self._on_room: list[Callable[[], None]] = []

    async def connect(self, deadline: Deadline) -> None:
        """Waits for the relay, which may only just be starting. Raises CannotConnect."""
        try:
            self._holds = HoldTable.create(self._folder, self._who.replica)
            self._tables = HoldTables(self._folder)
        except OSError as error:
            raise CannotConnect(f"The pod's shared folder {self._folder} cannot be used: {error.strerror}.") from error
        backoff = Backoff()
        while True:
            try:
                await self._open()
            except LineLost as lost:
                if deadline.passed:
                    raise CannotConnect(f"There is no relay to be reached in {self._folder}: {lost}.") from lost
                logger.info("waiting for the relay", extra={"why": str(lost)})
                await anyio.sleep(min(backoff.next(), deadline.remaining))
            else:
                return

    async def run(self) -> None:
        """Keeps the line, and the process's part of the arena, until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_up)
                while True:
                    await self._listen()
                    await self._come_back()
        finally:
            self.close()

    def close(self) -> None:
        """The process will neither write to its extents nor send from them again."""
        if self._line is not None:
            self._line.close()
        if self._arena is not None:
            for extent in self.slots.extents:
                self.slots.revoke(extent.index)

    # Space.

    def want(self, size: int) -> None:
        """Asks for space for a slot of so many bytes; what is told of room hears of it."""
        self._last_want = self._clock()
        self._wants.want(size)
        self._ask()

    def on_room(self, callback: Callable[[], None]) -> None:
        """Calls back whenever there may be room where there was none."""
        self._on_room.append(callback)

    def release(self, slot: ArenaSlot) -> None:
        """Ends one use of a slot of this process's own."""
        if self.slots.release(slot):
            self._tell_of_room()

    def lose(self, slot: ArenaSlot) -> None:
        """As `release`, of somebody who may look at it still: there is room once nobody does."""
        self.slots.lose(slot)

    # What others sent.

    def view(self, ref: DataRef, released: Released) -> Tensor:
        """As `ArenaReader.view`."""
        return self._reader.view(ref, released)

    def on_arrival(self, handler: Arrival) -> None:
        """Who is told of tensors from other pods, and owes a `return_arrived` for each. Without one they go back."""
        self._on_arrival = handler

    @property
    def arrived(self) -> int:
        """Tensors from other pods that have not been returned."""
        return len(self._arrived)

    def return_arrived(self, slot: ArenaSlot) -> None:
        """Nobody looks at it any more, or ever will."""
        if self._arrived.pop(_id(slot), None) is not None:
            self._send(pod_pb2.StageMessage(release=pod_pb2.ReleaseArrived(slots=[slot])))

    # What goes to others.

    def push(self, push: pod_pb2.Push, ended: Ended) -> None:
        """Has the relay move a slot's bytes. `ended` is called once, and at once if there is no relay just now; the
        slot stays leased until then."""
        number = push.transfer.number
        self._pushes[number] = _Push(ended, self._clock() + seconds_of(push.remaining) + OVERDUE)
        if not self._send(pod_pb2.StageMessage(push=push)):
            self._end(number, PushResult(_relay_gone()))

    def cancel(self, number: int) -> None:
        """The push's request is over; the push ends soon."""
        if number in self._pushes:
            transfer = TransferId(source=self.source, number=number)
            self._send(pod_pb2.StageMessage(cancel=pod_pb2.CancelPush(transfer=transfer)))

    # The line.

    async def _open(self) -> None:
        """Connects and exchanges greetings. Raises LineLost, and CannotConnect where trying again is of no use."""
        with ExitStack() as undo:
            line = PacketLine(dial(self._folder))
            undo.callback(line.close)
            line.send(pod_pb2.StageMessage(hello=self._hello()).SerializeToString())
            packets: list[bytes] = []
            with anyio.move_on_after(WELCOME):
                packets = await line.receive()
            if not packets:
                raise LineLost("it says nothing")
            first, *rest = map(_parse, packets)
            self._welcome(first)
            undo.callback(self._forget_line)
            self._line = line
            self._handle(rest)
            undo.pop_all()
        self._ask()

    def _hello(self) -> pod_pb2.StageHello:
        hello = pod_pb2.StageHello(
            contract_version=CONTRACT_VERSION,
            pipeline=self._who.pipeline,
            stage=self._who.stage,
            replica=self._who.replica,
        )
        if self._arena is not None:
            hello.arena_epoch = self._arena.epoch
            hello.extents.extend(render_extent(extent) for extent in self.slots.extents)
            # What is not claimed is freed once nobody looks at it; its events, if they are still to come, fail.
            self._arrived = dict(list(self._arrived.items())[-_CLAIMS:])
            hello.arrived.extend(self._arrived.values())
        return hello

    def _welcome(self, message: pod_pb2.RelayMessage) -> None:
        welcome = message.welcome
        if not message.HasField("welcome"):
            raise LineLost("its first word is no welcome")
        if welcome.contract_version != CONTRACT_VERSION:
            theirs = welcome.contract_version
            raise CannotConnect(f"The pod's relay speaks contract {theirs}, not {CONTRACT_VERSION}.")
        self.address = welcome.address
        if self._arena is None or self._arena.epoch != welcome.arena_epoch:
            self._enter(welcome.arena_epoch)
        else:
            kept = {extent.index for extent in welcome.extents}
            for extent in self.slots.extents:
                if extent.index not in kept:
                    self.slots.revoke(extent.index)

    def _enter(self, epoch: int) -> None:
        """Takes up the arena of that epoch."""
        try:
            arena = Arena.open(self._folder, epoch)
        except (OSError, LeaseLost) as error:
            raise LineLost(f"its arena cannot be opened: {error}") from error
        self._reader = ArenaReader(arena, self._holds, self._clock)
        writer = ArenaWriter(arena, self._holds, self._tables, self._clock)
        if self._arena is None:
            self.slots = Slots(arena, writer)
        else:
            logger.warning("the pod's arena is another one; what was in the old one is lost")
            self.slots.renew(arena, writer)
            self._arrived.clear()
        self._arena = arena

    async def _listen(self) -> None:
        """Until the line is lost."""
        line = self._line
        assert line is not None, "`connect` comes first"  # noqa: S101
        try:
            while True:
                self._handle(map(_parse, await line.receive()))
        except LineLost as lost:
            logger.warning("the relay is gone; tensors for other pods take another way", extra={"why": str(lost)})
        finally:
            line.close()
            self._forget_line()

    def _forget_line(self) -> None:
        self._line = None
        self._wants.lost()
        for number in list(self._pushes):
            self._end(number, PushResult(_relay_gone(), quiet=False))

    async def _come_back(self) -> None:
        backoff = Backoff()
        while self._line is None:
            await anyio.sleep(backoff.next())
            try:
                await self._open()
            except (LineLost, CannotConnect) as error:
                logger.debug("the relay is still gone", extra={"why": str(error)})
        logger.info("the relay is back")
        self._tell_of_room()

    def _send(self, message: pod_pb2.StageMessage) -> bool:
        """Whether the relay will read it, as far as is known. A line that is lost here is noticed in `_listen`."""
        if self._line is None:
            return False
        try:
            self._line.send(message.SerializeToString())
        except LineLost:
            return False
        return True

    def _handle(self, messages: Iterable[pod_pb2.RelayMessage]) -> None:
        for message in messages:
            match message.WhichOneof("message"):
                case "extent":
                    self._granted(message.extent)
                case "refused":
                    self._refused(message.refused.size)
                case "ended":
                    self._push_ended(message.ended)
                case "arrived":
                    self._tensor_arrived(message.arrived)
                case _:
                    logger.debug("a message of an unknown kind was skipped")

    def _granted(self, message: pod_pb2.Extent) -> None:
        self._wants.answered()
        try:
            extent = parse_extent(message)
        except ValueError as error:
            raise LineLost(f"it grants what cannot be: {error}") from error
        if not self.slots.grant(extent):
            logger.warning("a grant was void when it came", extra={"extent": extent.index})
        self._tell_of_room()
        self._ask()

    def _refused(self, size: int) -> None:
        logger.warning("the arena can never hold such a tensor", extra={"bytes": size})
        self._wants.answered()
        self.slots.refuse(size)
        self._tell_of_room()
        self._ask()

    def _ask(self) -> None:
        if self._line is not None and (size := self._wants.next()) is not None:
            self._send(pod_pb2.StageMessage(want=pod_pb2.WantExtent(size=size)))

    def _push_ended(self, message: pod_pb2.PushEnded) -> None:
        error = error_of(message.failure) if message.HasField("failure") else None
        self._end(message.transfer.number, PushResult(error, message.transport))

    def _end(self, number: int, result: PushResult) -> None:
        push = self._pushes.pop(number, None)
        if push is not None:
            push.ended(result)

    def _tensor_arrived(self, message: pod_pb2.Arrived) -> None:
        slot = ArenaSlot()
        slot.CopyFrom(message.slot)  # of its own: a part of a message would keep all of it in memory
        self._arrived[_id(slot)] = slot
        if self._on_arrival is None:
            self.return_arrived(slot)
            return
        try:
            self._on_arrival(message)
        except InvalidRequest as error:
            raise LineLost(f"it brings what belongs to nobody: {error.message}") from error

    # Upkeep.

    async def _keep_up(self) -> None:
        while True:
            await anyio.sleep(UPKEEP)
            now = self._clock()
            if freed := self.slots.reclaim(now):
                names.ARENA_RECLAIMED.inc(freed)
                self._tell_of_room()
            if self._line is not None:
                self._give_back(now)
                if any(push.overdue < now for push in self._pushes.values()):
                    logger.error("the relay has not ended a push in time")
                    self._line.close()
            names.ARENA_IN_USE.set(self.slots.in_use)
            names.ARENA_HELD.set(self.slots.held)

    def _give_back(self, now: float) -> None:
        if now - self._last_want > IDLE and (extent := self.slots.take_back()) is not None:
            self._send(pod_pb2.StageMessage(give_back=pod_pb2.ReturnExtent(index=extent.index)))

    def _tell_of_room(self) -> None:
        for callback in self._on_room:
            callback()


def _parse(packet: bytes) -> pod_pb2.RelayMessage:
    try:
        return pod_pb2.RelayMessage.FromString(packet)
    except DecodeError as error:
        raise LineLost("it does not speak the contract") from error


def _id(slot: ArenaSlot) -> tuple[int, int]:
    return slot.epoch, slot.generation


def _relay_gone() -> OmniError:
    return OmniError(Reason.STAGE_UNAVAILABLE, "The relay of this pod cannot be reached.")
