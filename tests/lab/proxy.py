"""A TCP proxy that harms what passes through it, on command: what networks do to relays, without being root."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

_CHUNK = 64 * 1024
_BUFFER = 256 * 1024
"""Of the kernel, per socket: small, so that a slow line is felt at its other end."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER, with no time to linger."""

Harm = Callable[[bytes], bytes]
"""What becomes of a chunk; b"" if it is lost."""


@dataclass
class Line:
    """One direction, as the client sees it: `up` is what it sends, `down` what it gets. Of all connections together."""

    passed: int = 0
    """Bytes that have come out."""
    rate: float = 0.0
    """Bytes per second; 0 for as fast as it goes."""
    delay: float = 0.0
    """Seconds that each chunk waits."""
    flowing: threading.Event = field(default_factory=threading.Event)
    harms: list[Harm] = field(default_factory=list)
    """Each is tried on every chunk, until it has changed one."""

    def __post_init__(self) -> None:
        self.flowing.set()

    def stall(self) -> None:
        """Takes nothing any more, and says nothing."""
        self.flowing.clear()

    def damage(self, mark: bytes, times: int = 1) -> None:
        """Flips a bit within the next chunks that hold `mark`."""

        def flip(chunk: bytes) -> bytes:
            place = chunk.find(mark)
            if place < 0:
                return chunk
            harmed = bytearray(chunk)
            harmed[place + len(mark) // 2] ^= 0x10
            return bytes(harmed)

        self.harms += [flip] * times

    def repeat(self, mark: bytes) -> None:
        """Sends the next chunk with `mark` in it twice."""
        self.harms.append(lambda chunk: chunk * 2 if mark in chunk else chunk)

    def lose(self, mark: bytes) -> None:
        """Loses some bytes of the next chunk with `mark` in it: what TCP never does, and broken middle boxes do."""
        self.harms.append(lambda chunk: chunk.replace(mark, b"", 1))

    def harmed(self, chunk: bytes) -> bytes:
        for place, harm in enumerate(self.harms):
            if (changed := harm(chunk)) != chunk:
                del self.harms[place]
                return changed
        return chunk


class Proxy:
    """Forwards to `target`, host:port, whatever connects to `address`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.up, self.down = Line(), Line()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.connections = 0
        """That were made, in all."""
        self._start(self._accept)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def reset(self) -> None:
        """Ends all connections with RST; new ones may come."""
        with self._lock:
            for sock in self._sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
                _wake(sock)

    def close(self) -> None:
        self._over.set()
        self.up.flowing.set()
        self.down.flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                _wake(sock)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._join, client)

    def _join(self, client: socket.socket) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            server = socket.create_connection((host, int(port)), timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        with self._lock:
            self._sockets |= {client, server}
            self.connections += 1
        back = threading.Thread(target=self._pump, args=(server, client, self.down), name="proxy", daemon=True)
        back.start()
        self._pump(client, server, self.up)
        back.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, line: Line) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                self._pause(line, len(chunk))
                sink.sendall(line.harmed(chunk))
                line.passed += len(chunk)
        _wake(source)
        _wake(sink)

    def _pause(self, line: Line, size: int) -> None:
        line.flowing.wait()
        seconds = line.delay + (size / line.rate if line.rate else 0.0)
        until = monotonic() + seconds
        while seconds and not self._over.is_set() and (left := until - monotonic()) > 0:
            self._over.wait(left)


def _wake(sock: socket.socket) -> None:
    """Ends what waits in it, and tells the other end unless closing it is to say more."""
    resets = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RST_ON_CLOSE)) == _RST_ON_CLOSE
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD if resets else socket.SHUT_RDWR)


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
