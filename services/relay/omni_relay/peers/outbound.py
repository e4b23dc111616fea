"""The way to one other relay: dialled when there is something to push, kept while there is, and dialled again after it
was lost.

Pushes wait for a first dialling, or one after the loss of a connection. Once dialling has failed, they are refused at
once (their stages have another way) until one of them has found, by a dialling that it does not wait for, that the
relay is back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from math import inf

from omni_common.errors import OmniError, Reason
from omni_common.rpc.dialer import Backoff
from omni_common.telemetry import names
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.sending import Unit
from omni_relay.core.turns import PIECE
from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.peers.carriers.registry import TCP
from omni_relay.peers.dialling import dial
from omni_relay.peers.meters import OUT
from omni_relay.peers.pushes import Ended, Pushes, Verdict
from omni_relay.peers.pushing import Lines, Pushing
from omni_relay.peers.way import Way
from omni_relay.ports import PushOrder, Transfer
from omni_relay.watched import start_thread
from omni_relay.wire.record import ChannelLost

logger = logging.getLogger(__name__)

# Seconds without a push after which a connection is closed, and its thread ends.
IDLE = 60.0
# Times the timeout of a connection that pushes wait for a dialling: it keeps its own deadline, but name servers do not.
_TOO_LONG = 1.5


class Outbound:
    """Pushes to the relay at `address`. Any thread."""

    def __init__(self, address: str, way: Way) -> None:
        self._address = address
        self._way = way
        self._changed = threading.Condition()
        self._pushes = Pushes(way.clock)
        self._connection: Pushing | None = None
        self._thread: threading.Thread | None = None
        self._transport = way.carriers.label(TCP)
        self._backoff = Backoff()
        self._down = False
        self._retry_at = 0.0
        self._probes = False
        self._dialling_since = inf
        self._closed = False
        self._used = way.clock()

    def submit(self, order: PushOrder, ended: Ended) -> None:
        """See ports.Pushers. What fits in one piece and finds the line quiet is sent before this returns."""
        unit: Unit | None = None
        with self._changed:
            connection = self._current()
            if self._refuses():
                self._pushes.refuse(order, ended, unreachable())
            else:
                quiet = connection is not None and connection.quiet and len(order.data) <= PIECE
                self._pushes.add(order, ended)
                if connection is not None and quiet:
                    unit = connection.take()
                if unit is None:
                    self._wake()
            verdicts = self._pushes.verdicts()
        self._tell(verdicts)
        if connection is not None and unit is not None:
            connection.transmit(unit)

    def cancel(self, transfer: Transfer) -> None:
        """See ports.Pushers."""
        with self._changed:
            self._pushes.cancel(transfer)
            self._changed.notify_all()
            verdicts = self._pushes.verdicts()
        self._tell(verdicts)

    def tick(self, now: float) -> None:
        """To be called every fraction of a second: ends what is late, returns space and closes what lies idle."""
        with self._changed:
            self._pushes.sending.expire(now)
            if (connection := self._current()) is not None and now - connection.idle_since(now) >= IDLE:
                connection.fail(ChannelLost("Nothing was pushed for a while."))
                self._current()
            self._changed.notify_all()
            verdicts = self._pushes.verdicts()
            if now - self._dialling_since >= _TOO_LONG * self._way.link.timeout:
                verdicts += self._give_up_waiting()  # its name, perhaps, takes long to be resolved
        self._tell(verdicts)

    @property
    def live(self) -> int:
        """Pushes that have not ended."""
        with self._changed:
            return self._pushes.sending.live

    def touch(self) -> None:
        """It is about to be used."""
        with self._changed:
            self._used = self._way.clock()

    def dormant(self, now: float) -> bool:
        """Nothing is left of it but the memory of whether its relay could be reached."""
        with self._changed:
            return self._thread is None and not self._pushes.sending.live and now - self._used >= IDLE

    def close(self) -> threading.Thread | None:
        """Ends all pushes; gives the thread that is about to end, if there is one."""
        with self._changed:
            self._closed = True
            if self._connection is not None:
                self._connection.fail(ChannelLost("This relay ends."))
            self._pushes.sending.lose(unreachable())
            verdicts = self._pushes.verdicts()
            thread = self._thread
        self._tell(verdicts)
        return thread

    def _current(self) -> Pushing | None:
        """The connection that takes pushes. One that has failed takes no more: the next one will."""
        if self._connection is not None and self._connection.failure is not None:
            self._connection = None
            self._pushes = Pushes(self._way.clock)
        return self._connection

    def _refuses(self) -> bool:
        """Whether pushes are refused just now; every now and then one of those has the relay dialled."""
        if not self._closed and self._down and self._thread is None and self._way.clock() >= self._retry_at:
            self._probes = True
            self._start()
        return self._closed or self._down

    def _wake(self) -> None:
        if self._thread is None:
            self._start()
        self._changed.notify_all()

    def _start(self) -> None:
        self._thread = start_thread(f"to {self._address}", self._run)

    # Its thread

    def _run(self) -> None:
        while self._begin_to_dial():
            try:
                lines = dial(self._address, self._way)
            except (ChannelLost, Misbehaved, CarrierFailed) as failure:
                logger.info("a relay cannot be reached", extra={"peer": self._address, "why": str(failure)})
                self._not_reached()
            else:
                self._use(lines)

    def _begin_to_dial(self) -> bool:
        """False when nothing waits for a connection: then the thread has ended."""
        with self._changed:
            wanted = not self._closed and (self._pushes.sending.live > 0 or self._probes)
            self._probes = False
            self._dialling_since = self._way.clock() if wanted else inf
            if not wanted:
                self._thread = None
            return wanted

    def _not_reached(self) -> None:
        with self._changed:
            self._dialling_since = inf
            verdicts = self._give_up_waiting()
        self._tell(verdicts)

    def _use(self, lines: Lines) -> None:
        connection = self._connected(lines)
        peers = names.RELAY_PEERS.labels(OUT, connection.transport, lines.why)
        about = {"peer": self._address, "transport": connection.transport, "reason": lines.why}
        logger.info("connected to a relay", extra=about)
        peers.inc()
        reader = start_thread(f"replies of {self._address}", connection.read_all)
        connection.send_all()
        reader.join()  # no deadline: its line is cut
        lines.close()
        peers.dec()
        self._log_end(connection, about)
        self._disconnected(connection)

    def _log_end(self, connection: Pushing, about: Mapping[str, object]) -> None:
        if isinstance(connection.failure, Misbehaved):
            names.RELAY_REFUSED_PEERS.labels("misbehaved").inc()
            logger.warning("a relay was cut off", extra={**about, "why": f"It {connection.failure}."})
        else:
            logger.info("a connection to a relay ended", extra={**about, "why": str(connection.failure)})

    def _connected(self, lines: Lines) -> Pushing:
        with self._changed:
            self._down = False
            self._dialling_since = inf
            self._backoff.reset()
            self._connection = connection = Pushing(lines, self._pushes, self._changed, self._way)
            self._transport = connection.transport
            if self._closed:
                connection.fail(ChannelLost("This relay ends."))
        return connection

    def _disconnected(self, connection: Pushing) -> None:
        with self._changed:
            sending = connection.pushes.sending
            if isinstance(connection.failure, CarrierFailed) or sending.unanswered:
                self._way.carriers.failed(connection.lines.choice, self._address)
            self._current()
            sending.lose(unreachable())
            verdicts = connection.pushes.verdicts()
        self._tell(verdicts)

    def _give_up_waiting(self) -> list[Verdict]:
        """The relay cannot be reached: what waits for it does so in vain."""
        self._down = True
        self._retry_at = self._way.clock() + self._backoff.next()
        waiting, self._pushes = self._pushes, Pushes(self._way.clock)
        waiting.sending.lose(unreachable())
        return waiting.verdicts()

    def _tell(self, verdicts: list[Verdict]) -> None:
        if not verdicts:
            return
        now = self._way.clock()
        for verdict in verdicts:
            verdict.tell(self._transport, now)


def unreachable() -> OmniError:
    """What pushes end with that find no relay, or lose it."""
    return OmniError(
        Reason.STAGE_UNAVAILABLE, "The relay of another pod cannot be reached.", retry_after=timedelta(seconds=1)
    )
