"""A connection to another relay: pushes go out on one line, what that relay says of them comes in on the other.

Who sends is *busy*, and there is one at a time: the connection's own thread, or a stage's thread that finds the line
quiet and so spares the waking of another one. No lock is held while something is sent or received.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from omni_common.telemetry import names
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.receiving import Resend
from omni_relay.core.sending import SendPiece, Unit
from omni_relay.core.turns import PIECE
from omni_relay.peers import messages
from omni_relay.peers.carriers.carrier import CarrierFailed, PushCarrier
from omni_relay.peers.carriers.registry import TCP
from omni_relay.peers.messages import Ended, Freed, Granted, Refused, Welcome
from omni_relay.peers.meters import waited
from omni_relay.peers.pushes import Asked, Pushes, Verdict
from omni_relay.peers.way import Way
from omni_relay.wire.record import BadRecord, ChannelLost, Kind, Sink, Source, receive_control

Failure = ChannelLost | CarrierFailed | Misbehaved


@dataclass(frozen=True, slots=True)
class Lines:
    """What a connection is made of. `peer` is the address that was dialled."""

    peer: str
    sink: Sink
    source: Source
    carrier: PushCarrier
    choice: str
    why: str

    def cut(self) -> None:
        """Ends both lines and wakes whoever waits in them."""
        self.sink.cut()
        self.source.cut()

    def close(self) -> None:
        """After `cut`, when no thread is in them any more. When it returns, nothing reads the arena for them."""
        self.carrier.close()
        self.sink.close()
        self.source.close()


class Pushing:
    """One connection, from its welcome to its end. `changed` is the lock of its outbound."""

    def __init__(self, lines: Lines, pushes: Pushes, changed: threading.Condition, way: Way) -> None:
        self.lines = lines
        self.pushes = pushes
        self.failure: Failure | None = None
        """Why it is over, once it is."""
        self.transport = way.carriers.label(lines.choice)
        self._changed = changed
        self._way = way
        self._busy = False
        self._beat = way.clock() + way.heartbeat
        self._used = way.clock()
        pushes.sending.open(way.clock(), alone=lines.sink.longest if lines.choice == TCP else PIECE)

    # Any thread, under the lock

    @property
    def quiet(self) -> bool:
        """Nothing is being sent, waits to be sent, or is on its way in such an amount that sending could block."""
        sending = self.pushes.sending
        return self.failure is None and not self._busy and sending.idle and sending.unanswered < PIECE

    def take(self) -> Unit | None:
        """What to send next; whoever gets it is busy until `transmit` has returned."""
        unit = self.pushes.sending.next()
        self._busy = unit is not None
        return unit

    def idle_since(self, now: float) -> float:
        """When it was used last."""
        if self.pushes.sending.live:
            self._used = now
        return self._used

    def fail(self, failure: Failure) -> None:
        """It is over: nobody sends or receives on it for longer than it takes to notice. The first reason stays."""
        if self.failure is None:
            self.failure = failure
            self.lines.cut()
            self._changed.notify_all()

    # Outside of the lock

    def transmit(self, unit: Unit | None) -> None:
        """Sends what was taken, or a heartbeat."""
        failure = self._try(unit)
        now = self._way.clock()
        with self._changed:
            self._busy = False
            self._beat = now + self._way.heartbeat
            if isinstance(unit, SendPiece):
                self.pushes.sending.sent(unit.push, now)
            if failure is not None:
                self.fail(failure)
            if self.failure is not None or not self.pushes.sending.idle:
                self._changed.notify_all()
            verdicts = self.pushes.verdicts()
        self._tell(verdicts)

    def send_all(self) -> None:
        """The connection's own thread: sends until the connection is over and nobody is busy with it."""
        while self._wait_until(self._is_due):
            with self._changed:
                if self._busy or self.failure is not None:
                    continue
                unit = self.take()
                self._busy = True
            self.transmit(unit)
        with self._changed:
            while self._busy:
                self._changed.wait()  # no deadline: the lines are cut, so whoever is in them comes out

    def read_all(self) -> None:
        """The thread that hears what the other relay says, until the connection is over."""
        try:
            while True:
                head = self.lines.source.receive()
                if head.kind is Kind.CONTROL:
                    self._hear(messages.parse_reply(receive_control(self.lines.source, head)))
                elif head.kind is not Kind.HEARTBEAT:
                    raise BadRecord(f"A {head.kind.name} came on the line for replies.")
        except (ChannelLost, Misbehaved) as failure:
            with self._changed:
                self.fail(failure)

    def _try(self, unit: Unit | None) -> Failure | None:
        try:
            match unit:
                case None:
                    self.lines.sink.send(Kind.HEARTBEAT)
                case SendPiece():
                    self._send_piece(unit, self.pushes[unit.push])
                case _:
                    self.lines.sink.send(Kind.CONTROL, messages.render_push(unit))
        except (ChannelLost, CarrierFailed) as failure:
            return failure
        return None

    def _send_piece(self, piece: SendPiece, push: Asked) -> None:
        order = push.order
        sink = self.lines.sink
        if piece.begins:
            push.placed = push.asked + piece.waited
            begin = messages.render_begin(piece, order, now=self._way.clock())
            sink.send(Kind.CONTROL, begin, more=piece.length > 0)
        if piece.length:
            data = order.data[piece.offset : piece.offset + piece.length]
            place = piece.place.offset + piece.offset
            self.lines.carrier.carry(sink, data, place, number=piece.number, offset=piece.offset)
        push.sent = self._way.clock()
        if piece.begins:
            waited(order.edge).observe(piece.waited)

    def _hear(self, said: messages.FromReceiver) -> None:
        now = self._way.clock()
        sending = self.pushes.sending
        with self._changed:
            match said:
                case Granted(extent):
                    sending.granted(extent, now)
                case Refused(size):
                    sending.refused(size, now)
                case Ended(number, error):
                    sending.answered(number, error, now)
                case Freed(place):
                    sending.freed(place, now)
                case Resend(number, offset, length):
                    sending.resend(number, offset, length)
                    names.RELAY_RETRIES.labels(self.transport, "damaged").inc()
                case Welcome():
                    raise Misbehaved("welcomed this relay twice")
            if not sending.idle and not self._busy:
                self._changed.notify_all()
            verdicts = self.pushes.verdicts()
        self._tell(verdicts)

    def _is_due(self) -> bool:
        return not self._busy and (not self.pushes.sending.idle or self._way.clock() >= self._beat)

    def _wait_until(self, due: Callable[[], bool]) -> bool:
        """False when the connection is over."""
        with self._changed:
            while self.failure is None and not due():
                left = self._beat - self._way.clock()
                self._changed.wait(left if left > 0 else self._way.heartbeat)
            return self.failure is None

    def _tell(self, verdicts: list[Verdict]) -> None:
        if not verdicts:
            return
        now = self._way.clock()
        for verdict in verdicts:
            verdict.tell(self.transport, now)
