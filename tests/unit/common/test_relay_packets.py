"""Packets over a real socket: whole, in order, bounded, and none lost that the peer had sent before it died."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import anyio.to_thread
import pytest

from omni_common.relay.packets import MAX_BACKLOG, MAX_PACKET, LineLost, PacketLine
from omni_common.testing.mail import PATIENCE

pytestmark = pytest.mark.anyio


@contextmanager
def line_to_peer() -> Iterator[tuple[PacketLine, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = PacketLine(ours)
    with theirs:
        theirs.settimeout(PATIENCE)
        yield line, theirs
    line.close()


async def _receive(line: PacketLine, packets: int) -> list[bytes]:
    got: list[bytes] = []
    with anyio.fail_after(PATIENCE):
        while len(got) < packets:
            got += await line.receive()
    return got


async def _lost(line: PacketLine) -> str:
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await line.receive()
            except LineLost as lost:
                return str(lost)


async def _close(line: PacketLine) -> None:
    line.close()


async def test_packets_cross_whole_and_in_order() -> None:
    sent = [bytes([n]) * (1 + n * 250) for n in range(200)]
    with line_to_peer() as (line, peer):
        for packet in sent:
            line.send(packet)
        read = await anyio.to_thread.run_sync(lambda: [peer.recv(MAX_PACKET + 1) for _ in sent])
        assert read == sent
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, lambda: [peer.send(packet) for packet in sent])
            assert await _receive(line, len(sent)) == sent


async def test_a_peer_that_does_not_read_for_a_while_gets_everything_afterwards() -> None:
    packet = bytes(1000)
    with line_to_peer() as (line, peer):
        for _ in range(MAX_BACKLOG):
            line.send(packet)
        lengths = await anyio.to_thread.run_sync(lambda: {len(peer.recv(MAX_PACKET)) for _ in range(MAX_BACKLOG)})
        assert lengths == {1000}


async def test_a_peer_that_never_reads_is_gone() -> None:
    def flood(line: PacketLine) -> None:
        for _ in range(2 * MAX_BACKLOG):
            line.send(bytes(1000))

    with line_to_peer() as (line, _):
        with pytest.raises(LineLost, match="wait for it to read"):
            flood(line)
        assert "wait for it to read" in await _lost(line)


async def test_what_is_too_large_is_refused_on_either_side() -> None:
    with line_to_peer() as (line, peer):
        with pytest.raises(ValueError, match="over the limit"):
            line.send(bytes(MAX_PACKET + 1))
        peer.send(b"first")
        peer.send(bytes(MAX_PACKET + 1))
        assert await _receive(line, 1) == [b"first"]
        assert "more than" in await _lost(line)


async def test_what_a_peer_said_before_it_died_is_heard() -> None:
    with line_to_peer() as (line, peer):
        peer.send(b"last")
        peer.close()
        with pytest.raises(LineLost):
            line.send(b"too late")
        assert await _receive(line, 1) == [b"last"]
        assert await _lost(line)


async def test_what_a_peer_said_before_it_died_without_reading_is_heard() -> None:
    with line_to_peer() as (line, peer):
        line.send(b"unread")
        peer.send(b"last")
        peer.close()
        assert await _receive(line, 1) == [b"last"]
        assert "reset" in await _lost(line)


async def test_the_end_of_a_connection_wakes_who_waits() -> None:
    with line_to_peer() as (line, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, peer.close)
            assert await _lost(line) == "the connection ended"


async def test_a_line_that_is_closed_wakes_who_waits_and_sends_nothing() -> None:
    with line_to_peer() as (line, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_close, line)
            assert await _lost(line) == "it was closed"
        with pytest.raises(LineLost, match="closed"):
            line.send(b"x")
        assert peer.recv(1) == b""


async def test_it_works_on_the_loop_that_services_run_on() -> None:
    packets = [b"%d" % n for n in range(1000)]

    async def echo() -> list[bytes]:
        with line_to_peer() as (line, peer):
            for packet in packets:
                line.send(packet)
            received: list[bytes] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, lambda: [peer.send(peer.recv(10)) for _ in packets])
                received.extend(await _receive(line, len(packets)))
            return received

    assert await anyio.to_thread.run_sync(partial(anyio.run, echo, backend_options={"use_uvloop": True})) == packets
