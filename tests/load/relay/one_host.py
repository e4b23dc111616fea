"""SGLang-Omni's design for host tensors on one node, as a stand-in of our own: its shm relay and its control messages.

`python -m tests.load.relay.one_host receive ADDRESS` listens there, `python -m tests.load.relay.one_host send ADDRESS`
is asked for rounds.

A put takes one of two credits, makes a fresh `multiprocessing.shared_memory` block, copies the tensor in and names it
in a zmq.asyncio message; the receiver attaches, copies out, unlinks and answers; the answer frees the credit. It has
the best of it: uvloop, a flat JSON header where the original pickles, a target that is there already, and no resource
tracker, which would remove the blocks once more at exit.
"""

from __future__ import annotations

import json
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import anyio
import numpy as np
import zmq
import zmq.asyncio
from numpy.typing import NDArray
from tests.load.pool import Pool
from tests.load.relay.rounds import Round, Seconds, at_once, end_with_parent, serve_async

CREDITS = 2


class _Sender:
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket
        self._credits = anyio.Semaphore(CREDITS)
        self._waiting: dict[str, anyio.Event] = {}

    async def put(self, body: NDArray[np.uint8]) -> None:
        """Returns when the receiver has the bytes and says so."""
        async with self._credits:
            block = SharedMemory(create=True, size=body.nbytes)
            np.frombuffer(_memory(block), np.uint8, body.nbytes)[:] = body
            header = {"request": "bench", "name": block.name, "size": body.nbytes, "dtype": "uint8"}
            done = self._waiting[block.name] = anyio.Event()
            await self._socket.send(json.dumps(header).encode())
            block.close()
            await done.wait()

    async def listen(self) -> None:
        while True:
            self._waiting.pop((await self._socket.recv()).decode()).set()


async def _send(address: str) -> None:
    pool = Pool()
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.linger = 0
        socket.connect(address)
        sender = _Sender(socket)

        async def measure(round_: Round) -> Seconds:
            return await at_once(sender.put, pool.pieces(round_.size, round_.messages), round_.at_once)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.listen)
            await serve_async("ready", measure)
            tasks.cancel_scope.cancel()


async def _receive(address: str) -> None:
    end_with_parent()
    pool = Pool()
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.bind(address)
        print("bound", flush=True)
        while True:
            header = json.loads(await socket.recv())
            block = SharedMemory(header["name"])
            pool.take(header["size"])[:] = np.frombuffer(_memory(block), np.uint8, header["size"])
            block.close()
            block.unlink()
            await socket.send(header["name"].encode())


def _memory(block: SharedMemory) -> memoryview:
    assert block.buf is not None, "a block has memory until it is closed"
    return block.buf


def _track_nothing() -> None:
    resource_tracker.register = lambda *_: None
    resource_tracker.unregister = lambda *_: None


if __name__ == "__main__":
    _track_nothing()
    match sys.argv[1:]:
        case ["send", address]:
            anyio.run(_send, address, backend_options={"use_uvloop": True})
        case ["receive", address]:
            anyio.run(_receive, address, backend_options={"use_uvloop": True})
