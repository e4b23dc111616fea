"""How a stage of `tests.lab.stage_process` hands tensors over within its pod: references over a socket, as gRPC frames
carry them, and each comes back when it has been looked at."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.abc
from tests.lab.pattern import pattern

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni.relay.v1 import pod_pb2
from omni_common.relay import RelayClient
from omni_common.relay.packets import LineLost, PacketLine
from omni_common.relay.watch import Watch

# Slots that a neighbour has at a time.
_LENT = 8

Reserve = Callable[[int], Awaitable[tuple[ArenaSlot, memoryview]]]
Look = Callable[[ArenaSlot, int, object], bool]


class Neighbours:
    """Those that are connected. `handed` counts what they have returned, `seen` what they gave and was viewed."""

    def __init__(self, client: RelayClient, reserve: Reserve, look: Look) -> None:
        self.handed = 0
        self.seen = 0
        self._client = client
        self._reserve = reserve
        self._look = look
        self._sizes: Sequence[int] = ()
        self._changed = anyio.Event()

    def give(self, sizes: Sequence[int]) -> None:
        """From now on each gets tensors of these sizes, one after the other; none if there are none."""
        self._sizes = sizes
        self._wake()

    async def accept(self, listener: socket.socket) -> None:
        """Until cancelled."""
        listener.setblocking(False)
        watch = Watch(listener)
        async with anyio.create_task_group() as tasks:
            while True:
                await watch.readable()
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                tasks.start_soon(self.serve, sock)

    async def serve(self, sock: socket.socket) -> None:
        """Until it is gone, with what it had."""
        line = PacketLine(sock)
        lent: dict[tuple[int, int], ArenaSlot] = {}
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._give_on, line, lent)
                await self._hear(line, lent)
                tasks.cancel_scope.cancel()
        finally:
            line.close()
            for slot in lent.values():
                self._client.lose(slot)

    async def _hear(self, line: PacketLine, lent: dict[tuple[int, int], ArenaSlot]) -> None:
        """References to look at, and answers that they were."""
        try:
            while True:
                for packet in await line.receive():
                    message = pod_pb2.Arrived.FromString(packet)
                    slot = message.slot
                    ours = lent.pop((slot.epoch, slot.generation), None)
                    if ours is None:
                        self.seen += self._look(slot, message.length, (slot.epoch, slot.generation))
                        line.send(packet)
                    else:
                        self._client.release(ours)
                        self.handed += 1
                        self._wake()
        except LineLost:
            return

    async def _give_on(self, line: PacketLine, lent: dict[tuple[int, int], ArenaSlot]) -> None:
        given = 0
        while True:
            while not self._sizes or len(lent) >= _LENT:
                await self._changed.wait()
            size = self._sizes[given % len(self._sizes)]
            given += 1
            slot, data = await self._reserve(size)
            lent[slot.epoch, slot.generation] = slot
            data[:] = pattern((slot.epoch, slot.generation), size)
            try:
                line.send(pod_pb2.Arrived(slot=slot, length=size).SerializeToString())
            except LineLost:
                return
            await anyio.lowlevel.checkpoint()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
