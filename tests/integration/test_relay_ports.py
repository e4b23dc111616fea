"""Nonsense on every port of a relay's process: TCP before and past the handshake, the pod's socket, the metrics. Each
connection is closed, no memory is kept, and who is honest notices nothing."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.lab.descriptors import open_files, threads
from tests.lab.liar import LyingPusher, lying_pusher
from tests.lab.pods import MIB, TOKEN, eventually, memory_folder
from tests.relay_client import StageClient
from tests.relay_process import RelayProcess, running_relay

from omni.relay.v1 import pod_pb2
from omni_common.relay.packets import MAX_PACKET
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_relay.wire.plain import PlainSink
from omni_relay.wire.record import HEAD_SIZE, MAX_PIECE

Port = tuple[str, int]
# Bytes of its own that a relay may have more after all of it: what Python keeps for next time.
SLACK = 2 * MIB


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def relay(folder: Path) -> Iterator[RelayProcess]:
    token = folder / "token"
    token.write_bytes(TOKEN)
    settings = {"TOKEN_FILE": str(token), "ARENA_SIZE": str(32 * MIB), "EXTENT_SIZE": str(MIB)}
    with running_relay(folder, **settings) as relay:
        yield relay


def address_of(relay: RelayProcess) -> str:
    return str(relay.logged("listening")["address"])


def pushes_at(relay: RelayProcess) -> Port:
    host, _, port = address_of(relay).rpartition(":")
    return host, int(port)


def metrics_at(relay: RelayProcess) -> Port:
    return "127.0.0.1", int(relay.logged("metrics are served")["port"])


def says(port: Port, *parts: bytes) -> None:
    """And leaves, or is shown the door."""
    with socket.create_connection(port, 10) as sock, contextlib.suppress(ConnectionError):
        for part in parts:
            sock.sendall(part)


def strangers(relay: RelayProcess, folder: Path, turn: int) -> None:
    """Before any handshake."""
    says(pushes_at(relay), secrets.token_bytes(1 + secrets.randbelow(4096)))
    if turn == 0:
        says(pushes_at(relay), *[bytes([1]) * MIB] * 16)  # far more than any greeting


def impostors(relay: RelayProcess, folder: Path, turn: int) -> None:
    """Who know the token, and then send what is no record, half of one, or one that is far too long."""
    with lying_pusher(address_of(relay)) as liar:
        raw = _socket_of(liar)
        with contextlib.suppress(OSError):
            match turn % 4:
                case 0:
                    raw.sendall(secrets.token_bytes(1 + secrets.randbelow(4096)) + bytes(HEAD_SIZE))
                case 1:
                    raw.sendall(b"\x02" + b"\xff" * (HEAD_SIZE - 1))
                case 2:
                    raw.sendall(bytes([2, 0, 0, 0]) + MAX_PIECE.to_bytes(4, "little"))
                    raw.shutdown(socket.SHUT_WR)
                case _:
                    raw.sendall(bytes([1]) * (MAX_PIECE + HEAD_SIZE))
        assert liar.is_cut()


def _socket_of(liar: LyingPusher) -> socket.socket:
    assert isinstance(liar.sink, PlainSink)
    found = [value for value in vars(liar.sink._line).values() if isinstance(value, socket.socket)]
    return found[0]


HELLO = pod_pb2.StageMessage(hello=pod_pb2.StageHello(contract_version=CONTRACT_VERSION, stage="liar", replica="liar"))


def liars(relay: RelayProcess, folder: Path, turn: int) -> None:
    """On the pod's socket: noise, a message cut short, and one that is longer than any."""
    whole = HELLO.SerializeToString()
    packets = [secrets.token_bytes(1 + secrets.randbelow(4096)), whole[: 1 + turn % (len(whole) - 1)]]
    if turn % 10 == 0:
        packets = [bytes(MAX_PACKET + 1)]
    for packet in packets:
        with StageClient(folder) as line, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            line.socket.send(packet)
            line.ends()


def scrapers(relay: RelayProcess, folder: Path, turn: int) -> None:
    if turn % 10 == 0:  # that server takes its time
        says(metrics_at(relay), secrets.token_bytes(1 + secrets.randbelow(4096)), b"\r\n\r\n")


Nonsense = Callable[[RelayProcess, Path, int], None]


@pytest.mark.parametrize("nonsense", [strangers, impostors, liars, scrapers], ids=lambda function: function.__name__)
def test_nonsense_is_shown_the_door_and_leaves_nothing(relay: RelayProcess, folder: Path, nonsense: Nonsense) -> None:
    with StageClient(folder) as honest:
        honest.hello("honest")
        for turn in range(40):
            nonsense(relay, folder, turn)
        eventually(lambda: relay.metrics()["omni_relay_stages"] == 1, "they stay")
        before = open_files(relay.pid), threads(relay.pid), relay.memory()
        for turn in range(200):
            nonsense(relay, folder, turn)
        eventually(lambda: open_files(relay.pid) <= before[0], "descriptors stay")
        eventually(lambda: threads(relay.pid) <= before[1], "threads stay")
        assert relay.memory() - before[2] < SLACK
        assert honest.get(1).size == MIB
    with lying_pusher(address_of(relay)) as other:
        assert other.want(1000).size == MIB


def test_who_stops_in_the_middle_of_a_greeting_is_not_waited_for_for_ever(relay: RelayProcess) -> None:
    files = open_files(relay.pid)
    with contextlib.ExitStack() as open_here:
        for _ in range(20):
            open_here.enter_context(socket.create_connection(pushes_at(relay), 10)).sendall(b"\x00")
        with lying_pusher(address_of(relay)) as other:
            assert other.want(1000).size == MIB
        eventually(lambda: open_files(relay.pid) <= files, "they are waited for", 20)
