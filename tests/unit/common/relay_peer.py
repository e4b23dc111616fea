"""A relay that does what a test tells it, at the other end of a real socket: `pod.proto` over SOCK_SEQPACKET."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

import anyio

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni.relay.v1 import pod_pb2
from omni_common.arena import Arena, ArenaWriter, Extent, HoldTable, HoldTables
from omni_common.arena.extents import render_extent
from omni_common.arena.layout import EXTENTS
from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.relay import RelayClient, Who
from omni_common.relay.dial import SOCKET
from omni_common.relay.packets import PacketLine
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.testing.mail import PATIENCE

ADDRESS = "relay.invalid:1"
EXTENT = 64 << 10
WHO = Who("pipeline", "stage", "stage-0")


Item = TypeVar("Item")


class Letters(Generic[Item]):
    """What somebody was told, in order, for a test to wait for."""

    def __init__(self) -> None:
        self._letters: deque[Item] = deque()
        self._come = anyio.Event()

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, item: Item) -> None:
        self._letters.append(item)
        self._come.set()

    async def next(self) -> Item:
        with anyio.fail_after(PATIENCE):
            while not self._letters:
                self._come = anyio.Event()
                await self._come.wait()
        return self._letters.popleft()


class PeerLine:
    """The relay's end of one stage's line."""

    def __init__(self, line: PacketLine) -> None:
        self._line = line
        self._come: deque[pod_pb2.StageMessage] = deque()

    async def next(self) -> pod_pb2.StageMessage:
        with anyio.fail_after(PATIENCE):
            while not self._come:
                self._come.extend(map(pod_pb2.StageMessage.FromString, await self._line.receive()))
        return self._come.popleft()

    def say(self, **message: object) -> None:
        self.say_bytes(pod_pb2.RelayMessage(**message).SerializeToString())  # type: ignore[arg-type]

    def say_bytes(self, packet: bytes) -> None:
        self._line.send(packet)

    def close(self) -> None:
        self._line.close()


class RelayPeer:
    """Owns the folder's socket, and an arena of eight extents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arena = Arena.create(folder, EXTENTS + 8 * EXTENT)
        self.tables = HoldTables(folder)
        self._epochs = count(0xBEEF)
        self._arrived = self.writer(7)
        self._lines: list[PeerLine] = []
        self._listener = self._listen()

    def close(self) -> None:
        for line in self._lines:
            line.close()
        self._listener.close()
        (self.folder / SOCKET).unlink()

    def renew(self) -> None:
        """A relay that could not adopt the arena of its former life."""
        self.arena = Arena.create(self.folder, self.arena.size)

    async def accept(self) -> tuple[PeerLine, pod_pb2.StageHello]:
        """The next stage's line, and its first word."""
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(self._listener)
        connection, _ = self._listener.accept()
        line = PeerLine(PacketLine(connection))
        self._lines.append(line)
        first = await line.next()
        assert first.HasField("hello")
        return line, first.hello

    async def welcome(self, *extents: Extent, version: int = CONTRACT_VERSION) -> tuple[PeerLine, pod_pb2.StageHello]:
        line, hello = await self.accept()
        self.say_welcome(line, *extents, version=version)
        return line, hello

    def say_welcome(self, line: PeerLine, *extents: Extent, version: int = CONTRACT_VERSION) -> None:
        line.say(
            welcome=pod_pb2.RelayWelcome(
                contract_version=version,
                arena_epoch=self.arena.epoch,
                address=ADDRESS,
                extents=[render_extent(extent) for extent in extents],
            )
        )

    def extent(self, index: int) -> Extent:
        """Granted from now on."""
        extent = Extent(index, next(self._epochs), EXTENTS + index * EXTENT, EXTENT)
        self.arena.set_extent_epoch(index, extent.epoch)
        return extent

    def writer(self, index: int) -> ArenaWriter:
        """Somebody else who puts tensors into the arena."""
        arena = Arena.open(self.folder, self.arena.epoch)
        writer = ArenaWriter(arena, HoldTable.create(self.folder, "other"), self.tables)
        assert writer.grant(self.extent(index))
        return writer

    def put(self, data: bytes) -> ArenaSlot:
        """As what arrives from another pod."""
        reserved = self._arrived.reserve(len(data), None, float("inf"))
        assert reserved is not None
        slot, memory = reserved
        memory[:] = data
        return slot

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        os.close(folder)
        listener.listen()
        return listener


@asynccontextmanager
async def connected(peer: RelayPeer, *, clock: Clock = monotonic) -> AsyncIterator[tuple[RelayClient, PeerLine]]:
    """A stage's client that runs, and the relay's end of its line."""
    client = RelayClient(peer.folder, WHO, clock)
    lines: list[PeerLine] = []

    async def welcome() -> None:
        lines.append((await peer.welcome())[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(welcome)
        await client.connect(Deadline.after(PATIENCE))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        yield client, lines[0]
        tasks.cancel_scope.cancel()
