"""Transfers between two pods through their relays: both ends as stages have them.

`python -m tests.load.relay.between_pods receive FOLDER STAMPS EDGES` prints the address of its relay, whose folder that
is; `python -m tests.load.relay.between_pods send FOLDER STAMPS EDGES ADDRESS` is asked for rounds.

A tensor lies in the sender's arena. Its transfer begins with the push and is over when the sender knows that it ended
and the receiver has looked at the tensor; when it did, the receiver writes into the file STAMPS, since nothing else
in a transfer tells the sender. Every edge is a stage with a line of its own to its relay.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint
from tests.load.held import HELD_BYTES, Held
from tests.load.marks import mark
from tests.load.relay.rounds import Round, Seconds, end_with_parent, serve_async

from omni.common.v1.request_pb2 import RequestKey
from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef, DataType, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena.layout import slot_size
from omni_common.deadline import Deadline
from omni_common.relay import PushResult, RelayClient, Who
from omni_common.tensor import DType, Tensor

# Transfers of an edge whose stamps are kept: far more than are under way.
_STAMPS = 4096
# Tensors that a producer has at most.
_PLACES = 128
_START = 20.0
_DEADLINE = 60
_PIPELINE, _EDGE = "bench", "send>receive"


class Stamps:
    """When the receiver had looked at the latest tensors of each edge: nanoseconds of the clock that both sides read.

    Like an arena's words, each is 8 bytes, aligned, and so is written and read whole.
    """

    def __init__(self, path: Path, edges: int) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(file, 8 * _STAMPS * edges)
        self._words = memoryview(mmap.mmap(file, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)).cast("Q")
        os.close(file)

    def write(self, edge: int, number: int) -> None:
        self._words[self._place(edge, number)] = time.perf_counter_ns()

    def read(self, edge: int, number: int) -> float:
        """In seconds."""
        return self._words[self._place(edge, number)] / 1e9

    def _place(self, edge: int, number: int) -> int:
        return edge * _STAMPS + number % _STAMPS


class _Producer:
    """The sending end of an edge."""

    def __init__(self, client: RelayClient, stamps: Stamps, edge: int, to: str, window: int) -> None:
        self._client = client
        self._window = window
        self._stamps = stamps
        self._edge = edge
        self._to = to
        self._sent = 0
        self._room = anyio.Event()
        client.on_room(lambda: self._room.set())

    async def place(self, size: int, least: int) -> list[Tensor]:
        """As many tensors in the arena as the window holds, within reason."""
        number = max(least, min(_PLACES, self._window // size))
        return [await self._place(size) for _ in range(number)]

    async def send(self, body: Tensor) -> float:
        """The seconds of a transfer, when it is over. Raises OmniError if it failed."""
        mark(body.data)  # nobody but this process's relay reads it, and only from here on
        self._sent += 1
        number = self._sent
        ended = anyio.Event()
        results: list[tuple[float, PushResult]] = []

        def push_ended(result: PushResult) -> None:
            results.append((time.perf_counter(), result))
            ended.set()

        start = time.perf_counter()
        slot = self._client.slots.made_in_place(body)
        assert slot is not None, "`place` made it"
        self._client.push(self._push(number, slot, body.nbytes), push_ended)
        await ended.wait()  # the driver holds the deadline
        self._client.release(slot)
        told, result = results[0]
        if result.error is not None:
            raise result.error
        while (seen := self._stamps.read(self._edge, number)) < start:
            await checkpoint()  # the receiver's core has the tensor, and is about to look at it
        return max(told, seen) - start

    def _push(self, number: int, slot: ArenaSlot, length: int) -> pod_pb2.Push:
        push = pod_pb2.Push(
            transfer=TransferId(source=self._client.source, number=number),
            slot=slot,
            length=length,
            to=self._to,
            consumer=_receiver(self._edge),
            key=RequestKey(request_id=f"bench-{self._edge}"),
            edge=_EDGE,
        )
        push.remaining.seconds = _DEADLINE
        return push

    async def _place(self, size: int) -> Tensor:
        while (data := self._client.slots.allocate(size)) is None:
            self._room = anyio.Event()
            self._client.want(slot_size(size))
            await self._room.wait()
        return Tensor(DType.UINT8, (size,), data)


class _Sender:
    def __init__(self, producers: list[_Producer]) -> None:
        self._producers = producers
        self._size = 0
        self._placed: list[list[Tensor]] = []

    async def measure(self, round_: Round) -> Seconds:
        producers = self._producers[: round_.edges]
        if (self._size, len(self._placed)) != (round_.size, round_.edges):
            self._placed.clear()  # first: there may be room for one size only
            self._size = round_.size
            self._placed = [await producer.place(round_.size, round_.at_once) for producer in producers]
        if (round_.edges, round_.at_once) == (1, 1):
            bodies = cycle(self._placed[0])
            return [await producers[0].send(next(bodies)) for _ in range(round_.messages)]
        return await self._race(producers, round_)

    async def _race(self, producers: list[_Producer], round_: Round) -> Seconds:
        """All edges send until they have sent `messages` each on average: what each takes per message."""
        sent = [0] * len(producers)
        start = time.perf_counter()

        async def lane(edge: int, number: int) -> None:
            bodies = cycle(self._placed[edge][number :: round_.at_once])  # its own: a lane may overtake another
            while sum(sent) < round_.messages * len(producers):
                await producers[edge].send(next(bodies))
                sent[edge] += 1

        async with anyio.create_task_group() as lanes:
            for edge in range(len(producers)):
                for number in range(round_.at_once):
                    lanes.start_soon(lane, edge, number)
        elapsed = time.perf_counter() - start
        return [elapsed / number if number else float("inf") for number in sent]


class _Consumer:
    """The receiving end of an edge."""

    def __init__(self, client: RelayClient, stamps: Stamps, edge: int, window: int) -> None:
        self._client = client
        self._stamps = stamps
        self._edge = edge
        self._held = Held(window)
        self._released: deque[ArenaSlot] = deque()
        client.on_arrival(self._take)

    def _take(self, arrived: pod_pb2.Arrived) -> None:
        ref = DataRef(
            data_type=DataType.DATA_TYPE_UINT8, shape=[arrived.length], length=arrived.length, arena=arrived.slot
        )
        data = self._client.view(ref, self._released.append).data
        self._held.look(data)
        self._stamps.write(self._edge, arrived.transfer.number)
        self._held.keep(data)
        del data
        while self._released:
            self._client.return_arrived(self._released.popleft())


def _receiver(edge: int) -> str:
    return f"receive-{edge}"


async def _connect(folder: Path, stage: str, edges: int) -> list[RelayClient]:
    clients = [RelayClient(folder, Who(_PIPELINE, stage, f"{stage}-{edge}")) for edge in range(edges)]
    for client in clients:
        await client.connect(Deadline.after(_START))
    return clients


async def _send(folder: Path, stamps: Path, edges: int, to: str) -> None:
    clients = await _connect(folder, "send", edges)
    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(client.run)
        shared = Stamps(stamps, edges)
        producers = [_Producer(client, shared, edge, to, HELD_BYTES // edges) for edge, client in enumerate(clients)]
        await serve_async("ready", _Sender(producers).measure)
        tasks.cancel_scope.cancel()


async def _receive(folder: Path, stamps: Path, edges: int) -> None:
    end_with_parent()
    clients = await _connect(folder, "receive", edges)
    shared = Stamps(stamps, edges)
    consumers = [_Consumer(client, shared, edge, HELD_BYTES // edges) for edge, client in enumerate(clients)]
    print(clients[0].address, flush=True)
    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(client.run)
    del consumers


def _run(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    anyio.run(function, *arguments, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", folder, stamps, edges, to]:
            _run(_send, Path(folder), Path(stamps), int(edges), to)
        case ["receive", folder, stamps, edges]:
            _run(_receive, Path(folder), Path(stamps), int(edges))
