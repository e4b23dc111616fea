"""A stage as a process of its own, without a model: it pushes to other pods, hands over within its own, and looks at
every byte that comes. A test tells it what to do over a line of packets, and may kill it at any moment.

What it sends says which tensor it is: a tensor's bytes follow from the number of its transfer, or from its slot.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
import anyio.abc
from tests.lab.neighbours import Neighbours
from tests.lab.pattern import pattern

from omni.common.v1.request_pb2 import RequestKey
from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef, DataType, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.deadline import Deadline
from omni_common.errors import OmniError
from omni_common.relay import NoRoom, PushResult, RelayClient, Who
from omni_common.relay.packets import LineLost, PacketLine
from omni_common.rpc.convert.envelope import duration_of
from omni_common.tensor import Tensor
from omni_common.testing.mail import PATIENCE

FOREVER = float("inf")
# Seconds between two looks at what has no event.
_TURN = 0.002


@dataclass(slots=True)
class _Push:
    number: int
    slot: ArenaSlot
    began: float
    over: anyio.Event = field(default_factory=anyio.Event)
    reason: str | None = None
    took: float = 0.0


class Stage:
    """One process's work. On the event loop, but for the ends of views."""

    def __init__(self, client: RelayClient, control: PacketLine, name: str) -> None:
        self._client = client
        self._control = control
        self._name = name
        self._neighbours = Neighbours(client, self._reserve, self._look)
        self._room = anyio.Event()
        self._numbers = 0
        self._pushes: dict[int, _Push] = {}
        self._reasons: Counter[str] = Counter()
        self._slowest = 0.0
        self._delivered = 0
        self._wrong: list[str] = []
        self._tells = False
        self._keep = 0
        self._kept: deque[Tensor] = deque()
        self._returned: deque[ArenaSlot] = deque()
        self._loads: list[anyio.CancelScope] = []
        client.on_room(self._has_room)
        client.on_arrival(self._arrived)

    async def run(self, neighbours: socket.socket | None) -> None:
        """Until nobody is left who could tell it anything. `neighbours` is one of its pod, or where they come."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._client.run)
            tasks.start_soon(self._return_views)
            if neighbours is not None:
                listens = neighbours.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                tasks.start_soon(self._neighbours.accept if listens else self._neighbours.serve, neighbours)
            self._tell("ready", address=self._client.address)
            try:
                while True:
                    for packet in await self._control.receive():
                        self._do(json.loads(packet), tasks)
            except LineLost:
                tasks.cancel_scope.cancel()

    def _tell(self, kind: str, **facts: object) -> None:
        self._control.send(json.dumps({"kind": kind, **facts}).encode())

    def _do(self, order: dict[str, object], tasks: anyio.abc.TaskGroup) -> None:
        match order:
            case {"do": "push", "to": str(to), "consumer": str(consumer), "size": int(size), "request": str(request)}:
                seconds = float(str(order["seconds"]))
                tasks.start_soon(self._push_once, to, consumer, size, request, seconds)
            case {"do": "load", "to": str(to), "consumer": str(consumer), "sizes": list(sizes), "lanes": int(lanes)}:
                for lane in range(lanes):
                    turned = sizes[lane % len(sizes) :] + sizes[: lane % len(sizes)]
                    tasks.start_soon(self._push_on, to, consumer, turned, str(lane))
            case {"do": "abort", "to": str(to), "consumer": str(consumer), "count": int(count), "lanes": int(lanes)}:
                tasks.start_soon(self._abort_all, to, consumer, count, lanes)
            case {"do": "hand over", "sizes": list(sizes)}:
                self._neighbours.give(sizes)
            case {"do": "stop"}:
                self._neighbours.give(())
                for scope in self._loads:
                    scope.cancel()
                self._loads.clear()
            case {"do": "keep", "count": int(count)}:
                self._keep = count
                self._trim()
            case {"do": "tell of arrivals"}:
                self._tells = True
            case {"do": "report"}:
                self._report()
            case _:
                raise ValueError(f"unknown order {order}")

    def _report(self) -> None:
        slots = self._client.slots
        self._tell(
            "report",
            leases=slots.leases,
            in_use=slots.in_use,
            pushing=len(self._pushes),
            arrived=self._client.arrived,
            delivered=self._delivered,
            wrong=self._wrong,
            handed=self._neighbours.handed,
            seen=self._neighbours.seen,
            reasons=self._reasons,
            slowest=self._slowest,
            files=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
        )

    # Pushes

    async def _push_once(self, to: str, consumer: str, size: int, request: str, seconds: float) -> None:
        push = await self._push(to, consumer, size, request, seconds)
        await push.over.wait()
        self._tell("ended", request=request, number=push.number, reason=push.reason, seconds=push.took)

    async def _push_on(self, to: str, consumer: str, sizes: Sequence[int], lane: str) -> None:
        scope = anyio.CancelScope()
        self._loads.append(scope)
        with scope:
            while True:
                for size in sizes:
                    push = await self._push(to, consumer, size, f"{self._name}-{lane}", PATIENCE)
                    await push.over.wait()
                    if push.reason is not None:
                        await anyio.sleep(_TURN)  # a stage would send it another way, which takes its time

    async def _abort_all(self, to: str, consumer: str, count: int, lanes: int) -> None:
        """Some before they have begun, some under way, some when they are over."""
        dice = random.Random(count)  # noqa: S311  # no secret
        left = iter(range(count))

        async def one_after_another() -> None:
            for index in left:
                size = 3 << 20 if index % 50 == 0 else dice.randrange(3000)
                push = await self._push(to, consumer, size, f"r{index % 7}", PATIENCE)
                moment = dice.randrange(4)
                if moment == 1:
                    await anyio.lowlevel.checkpoint()
                elif moment == 2:
                    await anyio.sleep(dice.random() * _TURN)
                elif moment == 3:
                    await push.over.wait()
                self._client.cancel(push.number)
                await push.over.wait()

        async with anyio.create_task_group() as tasks:
            for _ in range(lanes):
                tasks.start_soon(one_after_another)
        self._tell("aborted")

    async def _push(self, to: str, consumer: str, size: int, request: str, seconds: float) -> _Push:
        slot, data = await self._reserve(size)
        self._numbers += 1
        source, number = self._client.source, self._numbers
        data[:] = pattern((source, number), size)
        made = self._pushes[number] = _Push(number, slot, monotonic())
        push = pod_pb2.Push(
            transfer=TransferId(source=source, number=number),
            slot=slot,
            length=size,
            to=to,
            consumer=consumer,
            key=RequestKey(request_id=request, attempt=1),
            remaining=duration_of(seconds),
            edge="here>there",
        )
        self._client.push(push, partial(self._ended, made))
        return made

    def _ended(self, push: _Push, result: PushResult) -> None:
        del self._pushes[push.number]  # none ends twice
        (self._client.release if result.quiet else self._client.lose)(push.slot)
        push.reason = None if result.error is None else str(result.error.reason)
        push.took = monotonic() - push.began
        self._slowest = max(self._slowest, push.took)
        self._reasons[push.reason or "delivered"] += 1
        push.over.set()

    async def _reserve(self, size: int) -> tuple[ArenaSlot, memoryview]:
        while True:
            try:
                return self._client.slots.reserve(size, FOREVER)
            except NoRoom as full:
                room = self._room
                self._client.want(full.size)
                await room.wait()

    def _has_room(self) -> None:
        self._room.set()
        self._room = anyio.Event()

    # What comes

    def _arrived(self, arrived: pod_pb2.Arrived) -> None:
        tensor = self._view(arrived.slot, arrived.length, (arrived.transfer.source, arrived.transfer.number))
        if tensor is None:
            self._client.return_arrived(arrived.slot)
            return
        self._delivered += 1
        if self._tells:
            self._tell("arrived", request=arrived.key.request_id, length=arrived.length)
        self._kept.append(tensor)
        del tensor
        self._trim()

    def _look(self, slot: ArenaSlot, length: int, name: object) -> bool:
        return self._view(slot, length, name) is not None

    def _view(self, slot: ArenaSlot, length: int, name: object) -> Tensor | None:
        ref = DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=(length,), length=length, arena=slot)
        try:
            tensor = self._client.view(ref, self._returned.append)
        except OmniError as error:
            self._reasons[f"not viewed: {error.reason}"] += 1
            return None
        if tensor.data != pattern(name, length):
            self._wrong.append(str(name))
        return tensor

    def _trim(self) -> None:
        while len(self._kept) > self._keep:
            self._kept.popleft()

    async def _return_views(self) -> None:
        """The end of a view may come anywhere, so it is only noted there."""
        while True:
            await anyio.sleep(_TURN)
            while self._returned:
                self._client.return_arrived(self._returned.popleft())


async def _live(folder: Path, name: str, files: Sequence[int]) -> None:
    control, *others = [socket.socket(fileno=file) for file in files]
    client = RelayClient(folder, Who("toy", name, name))
    await client.connect(Deadline.after(PATIENCE))
    await Stage(client, PacketLine(control), name).run(others[0] if others else None)


def run_stage(folder: Path, name: str, files: Sequence[int]) -> None:
    """Until the other end of its line is gone. `files` are that line and, perhaps, a socket to stages of its pod."""
    anyio.run(_live, folder, name, files, backend_options={"use_uvloop": True})
