"""The least that a hand-over within a pod can be: shared memory without any bookkeeping, and a message to say where.

`python -m tests.load.relay.bare receive FOLDER` listens there, `python -m tests.load.relay.bare send FOLDER` is asked
for rounds. Who receives looks at both ends of the bytes and answers.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.load.marks import Checker, mark
from tests.load.relay.rounds import Round, Seconds, end_with_parent, one_by_one, serve

SIZE = 256 << 20
_PLACE = struct.Struct("<QQ")


def _map(folder: Path) -> memoryview:
    file = os.open(folder / "bare.memory", os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(file, 0, SIZE)
    return memoryview(mmap.mmap(file, SIZE, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))


def _send(folder: Path) -> None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(folder / "bare.sock"))
    memory = _map(folder)

    def hand_over(place: bytes) -> None:
        connection.send(place)
        connection.recv(1)

    def measure(round_: Round) -> Seconds:
        return one_by_one(hand_over, _places(memory, round_))

    serve("ready", measure)


def _places(memory: memoryview, round_: Round) -> Iterator[bytes]:
    here = 0
    for _ in range(round_.messages):
        here = here if here + round_.size <= SIZE else 0
        mark(memory[here : here + round_.size])
        yield _PLACE.pack(here, round_.size)
        here += round_.size


def _receive(folder: Path) -> None:
    end_with_parent()
    memory = _map(folder)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "bare.sock"))
    listener.listen()
    print("bound", flush=True)
    connection, _ = listener.accept()
    checker = Checker()
    while message := connection.recv(_PLACE.size):
        start, length = _PLACE.unpack(message)
        checker.check(memory[start : start + length])
        connection.send(b"a")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", folder]:
            _send(Path(folder))
        case ["receive", folder]:
            _receive(Path(folder))
