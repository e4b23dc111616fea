"""What a blocking TCP socket moves, in clear text or by Python's ssl: the limit for transfers between pods.

`python -m tests.load.relay.sockets receive ADDRESS [FOLDER]` prints its port;
`python -m tests.load.relay.sockets send ADDRESS PORT [FOLDER]` is asked for rounds. With the folder of a CA and a
certificate the bytes travel by TLS.

The bytes come from memory that no cache holds and go straight to such memory, one system call a message and end where
the sockets allow it (measured: pieces are slower); the receiver answers a message with one byte.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.load.pool import Pool
from tests.load.relay.rounds import Round, Seconds, end_with_parent, one_by_one, serve

_ROUND = struct.Struct("<QQ")
_ACK = b"a"


def _send(address: str, port: int, certificates: Path | None) -> None:
    connection = socket.create_connection((address, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if certificates:
        connection = _context(ssl.PROTOCOL_TLS_CLIENT, certificates).wrap_socket(connection)
    pool = Pool()

    def measure(round_: Round) -> Seconds:
        connection.sendall(_ROUND.pack(round_.size, round_.messages))

        def send(body: NDArray[np.uint8]) -> None:
            connection.sendall(body.data)
            connection.recv(1)

        return one_by_one(send, pool.pieces(round_.size, round_.messages))

    serve("ready", measure)


def _receive(address: str, certificates: Path | None) -> None:
    end_with_parent()
    listener = socket.create_server((address, 0))
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fill: Callable[[memoryview], None]
    if certificates:
        tls = _context(ssl.PROTOCOL_TLS_SERVER, certificates).wrap_socket(connection, server_side=True)
        connection, fill = tls, lambda into: _fill_by_records(tls, into)
    else:
        plain = connection
        fill = lambda into: _fill(plain, into)  # noqa: E731
    pool = Pool()
    head = memoryview(bytearray(_ROUND.size))
    while True:
        fill(head)
        size, messages = _ROUND.unpack(head)
        for _ in range(messages):
            fill(pool.take(size).data)
            connection.sendall(_ACK)


def _fill(connection: socket.socket, into: memoryview) -> None:
    if connection.recv_into(into, into.nbytes, socket.MSG_WAITALL) != into.nbytes:
        raise EOFError


def _fill_by_records(connection: ssl.SSLSocket, into: memoryview) -> None:
    got = 0
    while got < into.nbytes:
        if not (more := connection.recv_into(into[got:])):
            raise EOFError
        got += more


def _context(protocol: int, certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates / "ca.pem")
    context.load_cert_chain(certificates / "relay.crt", certificates / "relay.key")
    return context


def main(arguments: Iterable[str]) -> None:
    match list(arguments):
        case ["send", address, port, *folder]:
            _send(address, int(port), Path(folder[0]) if folder else None)
        case ["receive", address, *folder]:
            with suppress(EOFError):  # the sender has gone
                _receive(address, Path(folder[0]) if folder else None)


if __name__ == "__main__":
    main(sys.argv[1:])
