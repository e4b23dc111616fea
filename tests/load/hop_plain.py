"""Both ends of the hop that a design for one host would use: ZeroMQ for the header, a fresh shared memory segment
(`multiprocessing.shared_memory`) for the bytes.

It has the best of it: nothing is checked, nothing is copied out, and the segment is removed when the clock has
stopped. `PlainHop` is the producer; `python -m tests.load.hop_plain SOCKET` is the consumer, a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import anyio
import zmq
import zmq.asyncio

from omni_common.tensor import Tensor


class PlainHop:
    """The sending end. One message at a time. `inline` puts the bytes into the message instead."""

    def __init__(self, socket: zmq.asyncio.Socket, *, inline: bool) -> None:
        self._socket = socket
        self._inline = inline
        self._used: SharedMemory | None = None

    async def send(self, body: Tensor) -> None:
        """Returns when the receiver has the bytes and says so."""
        header: dict[str, object] = {"request": "bench", "dtype": body.dtype.name, "shape": body.shape}
        parts: list[bytes | memoryview]
        if self._inline:
            parts = [json.dumps(header).encode(), body.data]
        else:
            segment = self._used = SharedMemory(create=True, size=body.nbytes)
            _memory(segment)[: body.nbytes] = body.data
            parts = [json.dumps(header | {"segment": segment.name, "length": body.nbytes}).encode()]
        await self._socket.send_multipart(parts)
        await self._socket.recv()  # the driver holds the deadline of the whole measurement

    def tidy(self) -> None:
        """Removes the last segment."""
        if self._used is not None:
            self._used.close()
            self._used.unlink()
            self._used = None


@contextmanager
def plain_hops(address: str) -> Iterator[tuple[PlainHop, PlainHop]]:
    """The hop by segments and the hop inside messages, to the consumer at that address."""
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.linger = 0
        socket.connect(address)
        yield PlainHop(socket, inline=False), PlainHop(socket, inline=True)


async def _serve(address: str) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.bind(address)
        print("bound", flush=True)
        while True:
            header, *inline = await socket.recv_multipart()
            if inline:
                _touch(memoryview(inline[0]))
                await socket.send(b"")
                continue
            description = json.loads(header)
            segment = SharedMemory(description["segment"])
            # Python 3.11 takes every attached segment for the process's own and would remove it once more at exit.
            resource_tracker.unregister(f"/{segment.name}", "shared_memory")
            _touch(_memory(segment)[: description["length"]])
            await socket.send(b"")
            segment.close()


def _memory(segment: SharedMemory) -> memoryview:
    assert segment.buf is not None, "a segment has memory until it is closed"
    return segment.buf


def _touch(data: memoryview) -> None:
    """Reads both ends, as a model would begin to."""
    if data[0] + data[-1] > 510:
        raise AssertionError("two bytes are at most 510")


if __name__ == "__main__":
    anyio.run(_serve, sys.argv[1], backend_options={"use_uvloop": True})
