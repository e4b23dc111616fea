"""What comes over one connection of a relay that pushes: tensors are caught in the extents that it was granted,
verified, and handed to their consumers.

One thread reads. What the pod's own side has to say (an extent is granted, a slot was freed) comes from other threads
and goes back without blocking them.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from omni_common.arena.extents import Extent
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.errors import Cancelled, DataCorrupted, OmniError, Overloaded, Reason
from omni_common.telemetry import names
from omni_common.telemetry.names import Transport
from omni_relay.core.allotment import LARGE, Place
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.receiving import Begin, Receiving, Slot
from omni_relay.core.sending import CancelBegun, GiveBack, Want
from omni_relay.peers import messages
from omni_relay.peers.carriers.carrier import CatchCarrier
from omni_relay.peers.messages import Ended, Freed, Granted, Hello, Refused
from omni_relay.peers.meters import IN, count
from omni_relay.peers.replies import Replies
from omni_relay.peers.way import Way
from omni_relay.ports import ArrivedTensor, Transfer
from omni_relay.wire.record import MAX_PIECE, Head, Kind, Source, receive_control

logger = logging.getLogger(__name__)


class Catching:
    """A connection past its welcome. `name` is its own among all connections of this relay's life."""

    def __init__(
        self, name: str, source: Source, replies: Replies, carrier: CatchCarrier, transport: Transport, way: Way
    ) -> None:
        self._source = source
        self._replies = replies
        self._carrier = carrier
        self._transport = transport
        self._way = way
        self._lock = threading.Lock()
        self._receiving = Receiving()
        self._small = _Seat(name, self)
        self._large = _Seat(f"{name}/large", self)
        self._seats: dict[int, _Seat] = {}
        self._begun: dict[int, tuple[Begin, float]] = {}
        self._scratch = memoryview(bytearray())

    def run(self) -> None:
        """Takes what comes until it raises ChannelLost, Misbehaved or CarrierFailed. Then nothing of this connection
        is written any more, and nothing is left of it but what was delivered."""
        for seat in (self._small, self._large):
            self._way.space.join(seat.name, seat)
        try:
            while True:
                self._take(self._source.receive())
        finally:
            self._carrier.close()
            for seat in (self._small, self._large):
                self._way.space.leave(seat.name)
            for begin, _ in self._begun.values():
                count("", IN, self._transport, begin.length, _gone())

    # From other threads

    def grant(self, seat: _Seat, extent: Extent) -> None:
        with self._lock:
            seat.waits = False
            self._seats[extent.index] = seat
            self._receiving.grant(extent)
        self._replies.post(messages.render_reply(Granted(extent)))

    def refuse(self, seat: _Seat, size: int) -> None:
        with self._lock:
            seat.waits = False
        self._replies.post(messages.render_reply(Refused(size)))

    def free(self, place: Place) -> None:
        with self._lock:
            known = self._receiving.free(place.extent, place.offset)
            wanted = self._small.waits or self._large.waits
        if known and wanted:
            self._replies.post(messages.render_reply(Freed(place)))
        elif known:
            self._replies.leave(messages.render_reply(Freed(place)))  # who lacks room says so

    # From the reading thread

    def _take(self, head: Head) -> None:
        match head.kind:
            case Kind.PIECE | Kind.LANDED:
                self._catch(head)
            case Kind.CONTROL:
                self._hear(messages.parse_push(receive_control(self._source, head), self._way.clock()))
            case Kind.HEARTBEAT:
                pass

    def _hear(self, said: messages.FromPusher) -> None:
        match said:
            case Begin():
                self._begin(said)
            case Want(size):
                self._want(size)
            case GiveBack(extent):
                with self._lock:
                    self._receiving.give_back(extent)
                    seat = self._seats.pop(extent)
                self._way.space.give_back(seat.name, extent)
            case CancelBegun(number):
                if self._drop(number):
                    self._end(number, Cancelled())
            case Hello():
                raise Misbehaved("said hello twice")

    def _want(self, size: int) -> None:
        if size < slot_size(0):
            raise Misbehaved(f"wanted {size} bytes, in which no tensor has room")
        seat = self._large if size > LARGE else self._small
        with self._lock:
            if seat.waits:
                raise Misbehaved("wanted an extent while it waited for one")
            seat.waits = True
        self._replies.hurry()  # what is free already may be enough
        self._way.space.want(seat.name, size)

    def _begin(self, begin: Begin) -> None:
        with self._lock:
            has_room = self._receiving.begin(begin)
        self._begun[begin.number] = (begin, self._way.clock())
        if not has_room:
            self._end(begin.number, Overloaded("Too many tensors lie in the other pod."))
        elif not self._way.consumers.knows(begin.consumer):
            self._drop(begin.number)
            self._end(begin.number, _gone())
        elif not begin.length:
            self._hand_over(begin.number)

    def _catch(self, head: Head) -> None:
        if head.length > MAX_PIECE:
            raise Misbehaved(f"sent a piece of {head.length} bytes")
        with self._lock:
            place = self._receiving.piece(head.number, head.offset, head.length)
        if place is None:
            self._carrier.catch(self._source, head, self._scratch_of(head.length))
            return
        if self._carrier.catch(self._source, head, self._way.arena[place : place + head.length]):
            with self._lock:
                self._receiving.sound(head.number, head.offset, head.length)
            self._hand_over(head.number)
        else:
            self._ask_again(head)

    def _ask_again(self, head: Head) -> None:
        names.RELAY_CHECKSUM_FAILURES.labels(self._transport).inc()
        with self._lock:
            resend = self._receiving.spoilt(head.number, head.offset, head.length)
        if resend is not None:
            self._replies.send(messages.render_reply(resend))
        elif self._drop(head.number):
            self._end(head.number, DataCorrupted())

    def _hand_over(self, number: int) -> None:
        """Gives a transfer to its consumer if it is complete."""
        with self._lock:
            slot = self._receiving.complete(number)
        if slot is None:
            return
        begin = slot.begin
        where = self._way.arena[begin.offset - SlotHead.SIZE : begin.offset]
        where[:] = SlotHead(slot.extent.epoch, slot.generation, begin.length, begin.expires).pack()
        received = self._way.clock()
        if self._way.consumers.deliver(begin.consumer, _arrived(slot)):
            self._profile(begin, received)
            self._end(number, None)
            return
        where[:] = SlotHead.WIPED
        with self._lock:
            self._receiving.free(begin.extent, begin.offset)
        self._end(number, _gone())

    def _drop(self, number: int) -> bool:
        with self._lock:
            return self._receiving.cancel(number)

    def _end(self, number: int, error: OmniError | None) -> None:
        begin, _ = self._begun.pop(number)
        self._replies.send(messages.render_reply(Ended(number, error)))
        count("", IN, self._transport, begin.length, error)

    def _profile(self, begin: Begin, received: float) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            _, begun = self._begun[begin.number]
            times = {"begun": begun, "received": received, "delivered": self._way.clock()}
            which = {"source": begin.source, "number": begin.source_number, "length": begin.length}
            request = {"request_id": begin.key.request_id, "attempt": begin.key.attempt}
            logger.debug("caught", extra={**request, **which, **times})

    def _scratch_of(self, length: int) -> memoryview:
        if len(self._scratch) < length:
            self._scratch = memoryview(bytearray(MAX_PIECE))
        return self._scratch[:length]


class _Seat:
    """A place at the arena's space: one for small wants and one for large ones, so that a small one does not wait
    until there is room for a large one."""

    def __init__(self, name: str, catching: Catching) -> None:
        self.name = name
        self.waits = False
        self._catching = catching

    def granted(self, extent: Extent) -> None:
        self._catching.grant(self, extent)

    def refused(self, size: int) -> None:
        self._catching.refuse(self, size)

    def freed(self, extent: int, offset: int) -> None:
        self._catching.free(Place(extent, offset))


def _arrived(slot: Slot) -> ArrivedTensor:
    begin = slot.begin
    transfer = Transfer(begin.source, begin.source_number)
    return ArrivedTensor(transfer, slot.extent, begin.offset, slot.generation, begin.length, begin.key)


def _gone() -> OmniError:
    return OmniError(
        Reason.STAGE_UNAVAILABLE, "The stage that a tensor is for is not there.", retry_after=timedelta(seconds=1)
    )
