"""Packets to and from a process of the same pod: a SOCK_SEQPACKET socket that never makes its owner wait.

A packet is sent at once or joins a backlog that leaves as the peer reads. The backlog is bounded: a peer that does not
read is as good as gone.
"""

from __future__ import annotations

import socket
from collections import deque

from omni_common.relay.watch import Watch

MAX_PACKET = 64 << 10
"""Bytes of one packet."""

MAX_BACKLOG = 4096
"""Packets that may wait: more than the slots of tensors that a stage has under way; each is some 200 bytes."""

# Packets read in one go: others on the event loop have their turn after them.
_BATCH = 64


class LineLost(Exception):
    """The peer is gone, or does not read, or does not speak in packets."""


class PacketLine:
    """One end of a connection. Owns the socket; belongs to the event loop that it was made on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._watch = Watch(sock)
        self._backlog: deque[bytes] = deque()
        self._room = memoryview(bytearray(MAX_PACKET + 1))  # one more than allowed, to see that there was more
        self._broken: str | None = None
        self._closed = False

    def send(self, packet: bytes) -> None:
        """Never waits. Raises LineLost, also if the line is lost now; `receive` then gives what has come before it
        raises the same."""
        if len(packet) > MAX_PACKET:
            raise ValueError(f"a packet of {len(packet)} bytes is over the limit of {MAX_PACKET}")
        if self._broken is None:
            self._backlog.append(packet)
            if len(self._backlog) == 1:
                self._flush()
            elif len(self._backlog) > MAX_BACKLOG:
                self._break(f"{MAX_BACKLOG} packets wait for it to read")
        if self._broken is not None:
            raise LineLost(self._broken)

    async def receive(self) -> list[bytes]:
        """The packets that have come, at least one, in their order. Raises LineLost after the last one."""
        while True:
            if packets := self._read():
                return packets
            if self._broken is not None:
                self.close()
                raise LineLost(self._broken)
            await self._watch.readable()

    def close(self) -> None:
        """Idempotent; what waits in the backlog does not leave."""
        self._break("it was closed")
        if not self._closed:
            self._closed = True
            self._watch.close()
            self._socket.close()

    def _read(self) -> list[bytes]:
        packets: list[bytes] = []
        resets = 0
        while not self._closed and len(packets) < _BATCH:
            try:
                length = self._socket.recv_into(self._room)
            except BlockingIOError:
                break
            except ConnectionResetError:
                # Said once, of a peer that died with packets unread; what it had written comes after it.
                self._break("the connection was reset")
                resets += 1
                if resets > 1:
                    break
                continue
            except OSError as error:
                self._break(str(error.strerror))
                break
            if not length:
                self._break("the connection ended")
                break
            if length > MAX_PACKET:
                self._break(f"it sent a packet of more than {MAX_PACKET} bytes")
                break
            packets.append(bytes(self._room[:length]))
        return packets

    def _flush(self) -> None:
        while self._backlog and self._broken is None:
            try:
                self._socket.send(self._backlog[0])
            except BlockingIOError:
                self._watch.when_writable(self._flush)
                return
            except OSError as error:
                self._break(str(error.strerror))
            else:
                self._backlog.popleft()
        self._watch.writable_no_more()

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._broken = why
            self._backlog.clear()
            self._watch.writable_no_more()
            self._watch.wake()
