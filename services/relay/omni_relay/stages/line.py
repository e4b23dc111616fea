"""The relay's end of one stage's connection: whole messages in and out, and no waiting for a stage that does not read.

What does not fit into the socket just now waits in a backlog that the `Backlogs` of all lines write out, so that no
thread that has something to tell is ever held up by a stage.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import deque
from contextlib import suppress

from google.protobuf.message import DecodeError

from omni.relay.v1 import pod_pb2 as pb
from omni_common.clock import Clock, monotonic

logger = logging.getLogger(__name__)

MAX_PACKET = 64 << 10
"""Bytes of one message; see pod.proto."""

# Messages that a stage may leave unread, beyond the few hundred that the socket holds, and for how many seconds. A
# stage that does not come round to reading for so long has stopped, and what arrives for it takes room from others.
MAX_BACKLOG = 4096
STALLED = 10.0

# A number: to join the flags takes longer than to make the system call.
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Cut(Exception):
    """Why a stage's line is cut: completes the sentence "it …"."""


class StageLine:
    """A connected socket. One thread receives; any may send or shut."""

    def __init__(self, connection: socket.socket, backlogs: Backlogs, clock: Clock = monotonic) -> None:
        self._socket = connection
        self._backlogs = backlogs
        self._clock = clock
        self._lock = threading.Lock()
        self._backlog: deque[bytes] = deque()
        self._since = 0.0  # when the backlog last became one
        self._over = False
        self._buffer = memoryview(bytearray(MAX_PACKET + 1))  # one more than allowed, to see that there was more

    def fileno(self) -> int:
        return self._socket.fileno()

    def expect(self, timeout: float | None) -> None:
        """How many seconds `receive` waits from now on; None: for as long as the stage has nothing to say."""
        self._socket.settimeout(timeout)

    def receive(self) -> pb.StageMessage | None:
        """The next message; None at the end of the line. Raises Cut, and TimeoutError (see `expect`)."""
        try:
            length = self._socket.recv_into(self._buffer)
        except ConnectionError:
            return None
        if length == 0:
            return None
        if length > MAX_PACKET:
            raise Cut("sent more than any message has")
        try:
            message = pb.StageMessage.FromString(bytes(self._buffer[:length]))
        except DecodeError as error:
            raise Cut("sent what cannot be read") from error
        if message.WhichOneof("message") is None:
            raise Cut("sent a message without meaning")
        return message

    def send(self, message: pb.RelayMessage) -> bool:
        """Never waits. False when the line is over; True means that the stage finds the message there if it reads."""
        packet = message.SerializeToString()
        with self._lock:
            if self._over:
                return False
            if not self._backlog:
                if self._try(packet):
                    return not self._over
                self._since = self._clock()
                self._backlogs.watch(self)
            elif len(self._backlog) >= MAX_BACKLOG:
                self._end("has left too much unread")
                return False
            self._backlog.append(packet)
            return True

    def flush(self) -> None:
        """Writes out what waits, as far as it goes."""
        with self._lock:
            while self._backlog and self._try(self._backlog[0]):
                self._backlog.popleft()
            if not self._backlog:
                self._backlogs.forget(self)

    def cut_if_stalled(self) -> None:
        with self._lock:
            if self._backlog and not self._over and self._clock() - self._since > STALLED:
                self._end("has not read for a while")

    def shut(self) -> None:
        """Ends the line: `receive` returns at once, `send` says False."""
        with self._lock:
            self._shut()

    def close(self) -> None:
        """By the thread that receives, as its last act."""
        with self._lock:
            self._shut()
            self._backlogs.forget(self)
            self._socket.close()

    def _try(self, packet: bytes) -> bool:
        """False if the socket is full. Where nobody is at the other end any more the line is over."""
        try:
            self._socket.send(packet, _AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            self._shut()
        return True

    def _end(self, why: str) -> None:
        logger.warning("a stage is cut off", extra={"why": f"it {why}"})
        self._shut()

    def _shut(self) -> None:
        if self._over:
            return
        self._over = True
        self._backlog.clear()
        with suppress(OSError):  # the stage's end is gone already
            self._socket.shutdown(socket.SHUT_RDWR)


class Backlogs:
    """Writes out the backlogs of all lines, in a thread of its own."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._stopping = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._stopping, select.EPOLLIN)
        self._lines: dict[int, StageLine] = {}

    def watch(self, line: StageLine) -> None:
        """It has something to write. Like `forget`, called under the line's lock."""
        self._lines[line.fileno()] = line
        self._poll.register(line.fileno(), select.EPOLLOUT)

    def forget(self, line: StageLine) -> None:
        """It has nothing to write any more, or its descriptor is about to be closed."""
        if self._lines.pop(line.fileno(), None) is not None:
            self._poll.unregister(line.fileno())

    def cut_stalled(self) -> None:
        for line in tuple(self._lines.values()):
            line.cut_if_stalled()

    def run(self) -> None:
        """Until `stop`: a thread's target. It waits for as long as no stage is slow."""
        while True:
            for file, _ in self._poll.poll():
                if file == self._stopping:
                    os.close(self._stopping)
                    return
                if (line := self._lines.get(file)) is not None:
                    line.flush()

    def stop(self) -> None:
        """What waits is not written any more."""
        os.eventfd_write(self._stopping, 1)
