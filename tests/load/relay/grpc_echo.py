"""A message of gRPC with asyncio there and back, without anything of ours around it: what frames cannot be faster than.

`python -m tests.load.relay.grpc_echo answer` prints its address, `python -m tests.load.relay.grpc_echo ask ADDRESS` is
asked for rounds.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
import grpc
import grpc.aio
from tests.load.relay.rounds import Round, Seconds, at_once, end_with_parent, serve_async

_SERVICE, _METHOD = "tests.Echo", "Echo"


async def _ask(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")()

        async def ask(message: bytes) -> None:
            await call.write(message)
            await call.read()

        async def measure(round_: Round) -> Seconds:
            return await at_once(ask, (bytes(round_.size) for _ in range(round_.messages)), 1)

        await serve_async("ready", measure)
        await call.done_writing()
        await call.read()


async def _echo(_: object, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


async def _answer() -> None:
    end_with_parent()
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()  # the parent's end is this process's


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask", address]:
            anyio.run(_ask, address, backend_options={"use_uvloop": True})
        case ["answer"]:
            anyio.run(_answer, backend_options={"use_uvloop": True})
