"""Tensors as pieces of 1 MB in a gRPC stream: what moving them between pods would cost without a relay.

`python -m tests.load.relay.grpc_chunks receive ADDRESS` prints its port;
`python -m tests.load.relay.grpc_chunks send ADDRESS PORT` is asked for rounds.

It has the best of it: gRPC with threads, which is faster here than gRPC with asyncio, and bytes without protobuf around
them. The receiver puts the pieces together, as a tensor must be, and answers each tensor with one byte.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import grpc
import numpy as np
from numpy.typing import NDArray
from tests.load.pool import Pool
from tests.load.relay.rounds import Round, Seconds, end_with_parent, one_by_one, serve

_SERVICE, _METHOD = "tests.Chunks", "Move"
_PIECE = 1 << 20
_ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def _send(address: str, port: int) -> None:
    channel = grpc.insecure_channel(f"{address}:{port}", options=_ANY_SIZE)
    out: SimpleQueue[bytes] = SimpleQueue()
    move: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
    answers = move(iter(out.get, None))
    pool = Pool()

    def send(body: NDArray[np.uint8]) -> None:
        out.put(body.nbytes.to_bytes(8, "little"))
        for start in range(0, body.nbytes, _PIECE):
            out.put(body[start : start + _PIECE].tobytes())
        next(answers)

    def measure(round_: Round) -> Seconds:
        return one_by_one(send, pool.pieces(round_.size, round_.messages))

    serve("ready", measure)
    answers.cancel()


def _receive(address: str) -> None:
    end_with_parent()
    pool = Pool()

    def move(pieces: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for head in pieces:
            body = pool.take(int.from_bytes(head, "little"))
            got = 0
            while got < body.nbytes:
                piece = next(pieces)
                body[got : got + len(piece)] = np.frombuffer(piece, np.uint8)
                got += len(piece)
            yield b"a"

    server = grpc.server(ThreadPoolExecutor(1), options=_ANY_SIZE)
    handler = grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: grpc.stream_stream_rpc_method_handler(move)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(f"{address}:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()  # the parent's end is this process's


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", address, port]:
            _send(address, int(port))
        case ["receive", address]:
            _receive(address)
