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
from pathlib import Path

import anyio

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena import Arena
from omni_common.arena.extents import parse_extent
from omni_common.arena.reader import Released
from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.errors import InvalidRequest
from omni_common.relay.dial import dial
from omni_common.relay.greeting import MAX_CLAIMS, CannotConnect, Who, greet, parse, render_hello
from omni_common.relay.packets import LineLost, PacketLine
from omni_common.relay.pushes import Ended, PushesUnderWay, PushResult
from omni_common.relay.share import Share
from omni_common.relay.slots import Slots
from omni_common.relay.wants import Wants
from omni_common.rpc.convert import error_of, seconds_of
from omni_common.rpc.dialer import Backoff
from omni_common.telemetry import names
from omni_common.tensor import Tensor

logger = logging.getLogger(__name__)

# Seconds between two looks at what has expired, and that nobody looks at any more.
UPKEEP = 0.25

# Seconds without a want for space after which empty extents go back, one by one: a burst's next wave finds them here.
IDLE = 5.0

# Seconds after which a want has taken long. Then all that is empty goes back: the relay may need its bytes for the
# extent that is waited for, and whoever waits wants again and again, so that nothing here is idle.
PROMPT = 1.0

# Seconds beyond its deadline after which a push that has not ended says that the relay hangs.
OVERDUE = 5.0

Arrival = Callable[[pod_pb2.Arrived], None]


class RelayClient:
    """This process's line to its pod's relay. Belongs to the event loop; only `slots` is for all threads.

    `connect` once, before anything else; then `run` for as long as the process lives.
    """

    def __init__(self, folder: Path, who: Who, clock: Clock = monotonic) -> None:
        self.source = secrets.randbits(64) or 1
        """Names this process in the transfers that it begins."""
        self.address = ""
        """host:port where the relays of other pods reach this pod's."""
        self._folder = folder
        self._who = who
        self._clock = clock
        self._share: Share | None = None
        self._line: PacketLine | None = None
        self._pushes = PushesUnderWay()
        self._arrived: dict[tuple[int, int], ArenaSlot] = {}
        self._wants = Wants()
        self._last_want = self._asked_at = clock()
        self._on_arrival: Arrival | None = None
        self._on_room: list[Callable[[], None]] = []

    async def connect(self, deadline: Deadline) -> None:
        """Waits for the relay, which may only just be starting. Raises CannotConnect."""
        try:
            self._share = Share(self._folder, self._who.replica, self._clock)
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
        self._joined.close()

    # Space.

    @property
    def arena(self) -> Arena | None:
        """The pod's; another one if the relay had to make a new one."""
        return self._joined.arena

    @property
    def slots(self) -> Slots:
        """This process's own, for all of its threads."""
        return self._joined.slots

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
        return self._joined.reader.view(ref, released)

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
            self._return((slot,))

    # What goes to others.

    def push(self, push: pod_pb2.Push, ended: Ended) -> None:
        """Has the relay move a slot's bytes. `ended` is called once, and at once if there is no relay just now; the
        slot stays leased until then."""
        number = push.transfer.number
        self._pushes.begin(number, ended, overdue=self._clock() + seconds_of(push.remaining) + OVERDUE)
        if not self._send(pod_pb2.StageMessage(push=push)):
            self._pushes.refuse(number)

    def cancel(self, number: int) -> None:
        """The push's request is over; the push ends soon."""
        if number in self._pushes:
            transfer = TransferId(source=self.source, number=number)
            self._send(pod_pb2.StageMessage(cancel=pod_pb2.CancelPush(transfer=transfer)))

    # The line.

    async def _open(self) -> None:
        """Connects and exchanges greetings. Raises LineLost, and CannotConnect where another try is of no use."""
        # What is not claimed is freed once nobody looks at it; its events, if they are still to come, fail.
        self._arrived = dict(list(self._arrived.items())[-MAX_CLAIMS:])
        claimed = dict(self._arrived)
        hello = render_hello(self._who, self._joined, claimed.values())
        with ExitStack() as undo:
            line = PacketLine(dial(self._folder))
            undo.callback(line.close)
            welcome, rest = await greet(line, hello)
            self.address = welcome.address
            if self._joined.enter(welcome.arena_epoch, {extent.index for extent in welcome.extents}):
                self._arrived.clear()
                claimed.clear()
            undo.callback(self._forget_line)
            self._line = line
            self._return(slot for name, slot in claimed.items() if name not in self._arrived)
            self._handle(rest)
            undo.pop_all()
        self._ask()

    async def _listen(self) -> None:
        """Until the line is lost."""
        line = self._line
        assert line is not None, "`connect` comes first"  # noqa: S101
        try:
            while True:
                self._handle(map(parse, await line.receive()))
        except LineLost as lost:
            logger.warning("the relay is gone; tensors for other pods take another way", extra={"why": str(lost)})
        finally:
            line.close()
            self._forget_line()

    def _forget_line(self) -> None:
        self._line = None
        self._wants.lost()
        self._pushes.lose()

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

    def _return(self, slots: Iterable[ArenaSlot]) -> None:
        """While there is no relay it hears of them by the next hello, which does not claim them."""
        if released := tuple(slots):
            self._send(pod_pb2.StageMessage(release=pod_pb2.ReleaseArrived(slots=released)))

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
            self._asked_at = self._clock()
            self._send(pod_pb2.StageMessage(want=pod_pb2.WantExtent(size=size)))

    def _push_ended(self, message: pod_pb2.PushEnded) -> None:
        error = error_of(message.failure) if message.HasField("failure") else None
        self._pushes.end(message.transfer.number, PushResult(error, message.transport))

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
                if self._pushes.any_overdue(now):
                    logger.error("the relay has not ended a push in time")
                    self._line.close()
            names.ARENA_IN_USE.labels(self._who.stage).set(self.slots.in_use)
            names.ARENA_HELD.labels(self._who.stage).set(self.slots.held)

    def _give_back(self, now: float) -> None:
        waits = self._wants.asked and now - self._asked_at > PROMPT
        if not waits and now - self._last_want <= IDLE:
            return
        while (extent := self.slots.take_back(last=waits)) is not None:
            self._send(pod_pb2.StageMessage(give_back=pod_pb2.ReturnExtent(index=extent.index)))
            if not waits:
                return

    def _tell_of_room(self) -> None:
        for callback in self._on_room:
            callback()

    @property
    def _joined(self) -> Share:
        assert self._share is not None, "`connect` comes first"  # noqa: S101
        return self._share


def _id(slot: ArenaSlot) -> tuple[int, int]:
    return slot.epoch, slot.generation
