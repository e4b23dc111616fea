"""The way back to a pushing relay. Whoever may block sends at once if nobody else is sending; the others leave what
they have to say to a thread of the connection's own, which also sends the heartbeats. What nobody waits for travels
with the next reply, which costs neither end anything."""

from __future__ import annotations

import threading
from collections import deque

from omni_common.clock import Clock
from omni_relay.wire.record import Kind, Sink

# Replies that may wait: a few for each slot of a connection. A peer that pushes and does not read is cut.
MAX_WAITING = 1 << 17
# Replies of a kind that travel together at most, of some 10 bytes each.
_BATCH = 64


class Replies:
    """See the module. `heartbeat` is in seconds."""

    def __init__(self, sink: Sink, heartbeat: float, clock: Clock) -> None:
        self._sink = sink
        self._heartbeat = heartbeat
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._patient: deque[bytes] = deque()
        self._busy = False
        self._over = False

    def send(self, message: bytes) -> None:
        """In this thread, after what waits, unless another one is sending: then that one sends it. Raises ChannelLost.

        For the thread that reads what the peer pushes, which is spared the waking of another one.
        """
        with self._changed:
            self._waiting.append(message)
            if self._busy or self._over:
                return
            self._busy = True
        self._send_waiting()

    def post(self, message: bytes) -> None:
        """Never blocks, never raises: what the peer cannot be told any more is dropped."""
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self.cut()
            if not self._over:
                self._waiting.append(message)
                self._changed.notify()

    def leave(self, message: bytes) -> None:
        """As `post`, of what may wait for the next reply or heartbeat, and goes after it, or for `hurry`."""
        with self._changed:
            if len(self._patient) >= MAX_WAITING:
                self.cut()
            if not self._over:
                self._patient.append(message)

    def hurry(self) -> None:
        """What was left to wait goes now. Never blocks."""
        with self._changed:
            if self._patient:
                self._waiting.extend(self._patient)
                self._patient.clear()
                self._changed.notify()

    def run(self) -> None:
        """The connection's own thread, until it is cut. Raises ChannelLost when it is lost."""
        while self._is_due():
            if not self._waiting and not self._patient:
                self._sink.send(Kind.HEARTBEAT)
            self._send_waiting()

    def cut(self) -> None:
        """Ends it. Any thread."""
        with self._changed:
            self._over = True
            self._waiting.clear()
            self._patient.clear()
            self._changed.notify()
        self._sink.cut()

    def close(self) -> None:
        """After `cut`, when no thread is in it any more."""
        self._sink.close()

    def _is_due(self) -> bool:
        """Waits until something is to be sent, and makes this thread the one that does; False when it is over."""
        with self._changed:
            beat = self._clock() + self._heartbeat
            while not self._over:
                now = self._clock()
                if not self._busy and (self._waiting or now >= beat):
                    self._busy = True
                    return True
                self._changed.wait(beat - now if beat > now else self._heartbeat)
            return False

    def _send_waiting(self) -> None:
        while batch := self._next():
            last = len(batch) - 1
            for place, message in enumerate(batch):
                self._sink.send(Kind.CONTROL, message, more=place < last)

    def _next(self) -> list[bytes]:
        """What goes in one go; none: this thread is no longer the one that sends."""
        with self._changed:
            batch = [
                queue.popleft() for queue in (self._waiting, self._patient) for _ in range(min(len(queue), _BATCH))
            ]
            self._busy = bool(batch)
            return batch
