"""One end of a carrier in a process of its own: `python -m tests.unit.relay.carriers.other_end`.

Each line on stdin names a connection to begin: ROLE CARRIER FOLDER SIZE PORT TIMEOUT. What happens is told on stdout, a
line each. Its arena lies in the folder, so that the other process sees what is in it.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from pathlib import Path

from omni_common.arena.memory import Arena
from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.wire.line import TcpLine
from omni_relay.wire.plain import PlainSink, PlainSource
from omni_relay.wire.record import ChannelLost, Kind

SALT = 7
PLACE = 8192
"""Where the first piece goes in the catcher's arena; each piece's offset is counted from here."""
PATIENCE = 30.0
"""Seconds that the connection itself waits: longer than any test, so that it is never what ends a wait."""


def sink_of(sock: socket.socket) -> PlainSink:
    return PlainSink(TcpLine(sock, PATIENCE), SALT, frozenset(Kind))


def source_of(sock: socket.socket) -> PlainSource:
    return PlainSource(TcpLine(sock, PATIENCE), SALT)


def descriptors() -> int:
    gc.collect()  # what a test before has left in a cycle is not this one's
    return len(os.listdir("/proc/self/fd"))


def say(word: str) -> None:
    print(word, flush=True)


def catch(carrier: str, arena: Arena, sock: socket.socket, timeout: float) -> None:
    """Catches pieces until the connection ends; then says why, and once more when the carrier is closed."""
    module = importlib.import_module(f"omni_relay.peers.carriers.{carrier}")
    source = source_of(sock)
    module.Catch(arena.view, timeout).close()  # what a library opens once and for all is not this connection's
    before = descriptors()
    end = module.Catch(arena.view, timeout)
    say(end.details.hex())
    try:
        while True:
            head = source.receive()
            whole = end.catch(source, head, arena.view[PLACE + head.offset :][: head.length])
            say("whole" if whole else "damaged")
    except (ChannelLost, CarrierFailed) as error:
        say(type(error).__name__)
    end.close()
    say(f"closed, {descriptors() - before} descriptors left")


def push(carrier: str, arena: Arena, sock: socket.socket, timeout: float) -> None:
    """Reads the catcher's details and then one line for each piece: "announce" only, or "carry"; at last "close"."""
    module = importlib.import_module(f"omni_relay.peers.carriers.{carrier}")
    sink = sink_of(sock)
    piece = arena.view[PLACE:]
    piece[:] = b"\xee" * len(piece)
    end = module.Push(arena.view, bytes.fromhex(sys.stdin.readline()), timeout)
    while (order := sys.stdin.readline().strip()) != "close":
        try:
            if order == "announce":
                sink.send(Kind.LANDED, piece, number=1)
            else:
                end.carry(sink, piece, PLACE, number=1, offset=0)
            say("done")
        except (ChannelLost, CarrierFailed) as error:
            say(type(error).__name__)
    end.close()


def main() -> None:
    while line := sys.stdin.readline():  # not the iterator: it reads ahead
        role, carrier, folder, size, port, timeout = line.split()
        arena = Arena.create(Path(folder), int(size))
        with socket.create_connection(("127.0.0.1", int(port))) as sock:
            {"catch": catch, "push": push}[role](carrier, arena, sock, float(timeout))
        arena.close()


if __name__ == "__main__":
    main()
