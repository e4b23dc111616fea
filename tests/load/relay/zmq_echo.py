"""A message of ZeroMQ with asyncio there and back: the control round trip of a design for one host.

`python -m tests.load.relay.zmq_echo answer LOOP` prints its address, `python -m tests.load.relay.zmq_echo ask LOOP
ADDRESS` is asked for rounds; LOOP is `asyncio`, the loop that such a design runs on, or `uvloop`, the one that we do.
"""

from __future__ import annotations

import sys

import anyio
import zmq
import zmq.asyncio
from tests.load.relay.rounds import Round, Seconds, at_once, end_with_parent, serve_async


async def _ask(address: str) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.linger = 0
        socket.connect(address)

        async def ask(message: bytes) -> None:
            await socket.send(message)
            await socket.recv()

        async def measure(round_: Round) -> Seconds:
            return await at_once(ask, (bytes(round_.size) for _ in range(round_.messages)), 1)

        await serve_async("ready", measure)


async def _answer() -> None:
    end_with_parent()
    with zmq.asyncio.Context() as context, context.socket(zmq.PAIR) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        print(f"tcp://127.0.0.1:{port}", flush=True)
        while True:
            await socket.recv()
            await socket.send(b"")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask", loop, address]:
            anyio.run(_ask, address, backend_options={"use_uvloop": loop == "uvloop"})
        case ["answer", loop]:
            anyio.run(_answer, backend_options={"use_uvloop": loop == "uvloop"})
