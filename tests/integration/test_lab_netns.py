"""The network laboratory itself: two nodes that reach each other, and every fault between them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tests.lab.netns import Wire, missing, two_nodes

pytestmark = pytest.mark.skipif(bool(LACK := missing()), reason=str(LACK))

DEADLINE = 20.0


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with two_nodes() as nodes:
        yield nodes


@contextmanager
def connection(wire: Wire) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection from the left node to the right one: its ends."""
    with wire.right.call(lambda: socket.create_server((wire.right.address, 0))) as listener:
        listener.settimeout(DEADLINE)
        with wire.left.call(lambda: socket.create_connection(listener.getsockname(), DEADLINE)) as left:
            right, _ = listener.accept()
            with right:
                right.settimeout(DEADLINE)
                yield left, right


def exactly(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := end.recv(size - len(data))):
        data += piece
    return bytes(data)


def through(left: socket.socket, right: socket.socket, data: bytes) -> bytes:
    """What comes of data that is more than the sockets' buffers hold."""
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(left.sendall, data)
        arrived = exactly(right, len(data))
        sent.result()
    return arrived


def test_nodes_have_nothing_but_each_other(wire: Wire) -> None:
    assert [name for _, name in wire.left.call(socket.if_nameindex)] == ["lo", "eth0"]
    with connection(wire) as (left, right):
        left.sendall(b"there")
        assert exactly(right, 5) == b"there"
        right.sendall(b"back")
        assert exactly(left, 4) == b"back"


def test_a_process_runs_on_its_node(wire: Wire) -> None:
    program = "import socket; print(socket.create_server(('10.77.0.2', 0)).getsockname()[0])"
    command = wire.right.command(sys.executable, "-c", program)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "10.77.0.2\n"


def test_nothing_passes_a_silent_partition_until_it_is_healed(wire: Wire) -> None:
    with connection(wire) as (left, right):
        with wire.partition("DROP"):
            left.sendall(b"lost?")
            right.settimeout(0.3)
            with pytest.raises(TimeoutError):
                right.recv(5)
        right.settimeout(DEADLINE)
        assert exactly(right, 5) == b"lost?"


def test_a_partition_that_rejects_resets_who_sends(wire: Wire) -> None:
    with connection(wire) as (left, right), wire.partition("REJECT"):
        for end in (left, right):
            end.sendall(b"refused")
            with pytest.raises(ConnectionResetError):
                end.recv(1)


def test_nobody_can_connect_through_a_partition_that_rejects(wire: Wire) -> None:
    with (
        wire.right.call(lambda: socket.create_server((wire.right.address, 0))) as listener,
        wire.partition("REJECT"),
        pytest.raises(ConnectionRefusedError),
    ):
        wire.left.call(lambda: socket.create_connection(listener.getsockname(), DEADLINE))


def test_a_node_reaches_itself_through_every_partition(wire: Wire) -> None:
    itself = Wire(wire.right, wire.right)
    with wire.partition("DROP"), connection(itself) as (left, right):
        left.sendall(b"here")
        assert exactly(right, 4) == b"here"


def test_bandwidth_is_limited(wire: Wire) -> None:
    size, rate = 2 << 20, 4 << 20
    with connection(wire) as (left, right), wire.bandwidth(rate):
        start = time.monotonic()
        assert through(left, right, bytes(size)) == bytes(size)
        # A bucket is full at first, and nobody promises that a loaded machine reaches the limit.
        assert time.monotonic() - start > 0.7 * size / rate


def test_packets_are_lost_at_random(wire: Wire) -> None:
    sent = 1000
    with (
        wire.left.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as left,
        wire.right.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as right,
    ):
        right.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 8 << 20)
        right.bind((wire.right.address, 0))
        right.settimeout(0.3)
        with wire.loss(0.3):
            for _ in range(sent):
                left.sendto(b"x", right.getsockname())
            arrived = _datagrams(right)
    # Seven standard deviations of a thousand throws.
    assert 600 < arrived < 800


def test_tcp_gets_through_loss(wire: Wire) -> None:
    data = bytes(range(256)) * 4096
    with connection(wire) as (left, right), wire.loss(0.02):
        assert through(left, right, data) == data


def test_packets_are_delayed_each_way(wire: Wire) -> None:
    with connection(wire) as (left, right):
        with wire.delay(0.05):
            assert 0.1 <= _round_trip(left, right) < 5
        assert _round_trip(left, right) < 5


def test_jitter_loses_nothing(wire: Wire) -> None:
    data = bytes(range(256)) * 4096
    with connection(wire) as (left, right), wire.delay(0.005, jitter=0.005):
        assert through(left, right, data) == data


def _round_trip(left: socket.socket, right: socket.socket) -> float:
    start = time.monotonic()
    left.sendall(b"?")
    right.sendall(exactly(right, 1))
    exactly(left, 1)
    return time.monotonic() - start


def _datagrams(end: socket.socket) -> int:
    """How many come until none has come for the socket's timeout."""
    number = 0
    while True:
        try:
            end.recv(1)
        except TimeoutError:
            return number
        number += 1
