"""A producer in one pod and a consumer in another one, both in this process, and one tensor at a time between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from omni.common.v1.request_pb2 import RequestKey
from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef, DataType, TransferId
from omni.relay.v1 import pod_pb2
from omni_cli.bench.journal import TransferKey
from omni_cli.bench.pods import RunningPod
from omni_cli.bench.profile import Round
from omni_cli.errors import CommandError
from omni_common.clock import monotonic
from omni_common.data_ref import checksum
from omni_common.deadline import Deadline
from omni_common.relay import CannotConnect, NoRoom, PushResult, RelayClient, Who
from omni_common.relay.slots import FOREVER
from omni_common.rpc.convert import duration_of
from omni_common.tensor import Tensor

_CONNECT = 20.0
# For one tensor, and for the room that it needs: a relay that is slower than this hangs.
_PATIENCE = 60.0
_PRODUCER, _CONSUMER = "producer", "consumer"


class Ends:
    """The two ends. One transfer at a time."""

    def __init__(self, producer: RelayClient, consumer: RelayClient) -> None:
        self._producer = producer
        self._consumer = consumer
        self._number = 0
        self._arrived: tuple[float, ArenaSlot, Tensor] | None = None
        self._ended: tuple[float, PushResult] | None = None
        self._changed = anyio.Event()
        producer.on_room(self._wake)
        consumer.on_arrival(self._arrive)

    @property
    def transfer(self) -> TransferKey:
        """The last one."""
        return self._producer.source, self._number

    async def space(self, size: int) -> tuple[ArenaSlot, memoryview]:
        """Room in the producer's arena, to be filled and then pushed as often as is wished. Raises CommandError."""
        with anyio.move_on_after(_PATIENCE):
            while not self._producer.slots.too_large(size):
                try:
                    return self._producer.slots.reserve(size, FOREVER)
                except NoRoom as full:
                    self._producer.want(full.size)
                    await self._change()
        raise CommandError(f"There is no room for {size} bytes in the arena.")

    def free(self, slot: ArenaSlot) -> None:
        """It is pushed no more."""
        self._producer.release(slot)

    async def move(self, slot: ArenaSlot, size: int, *, expected: int | None = None) -> Round:
        """Pushes the slot once. Raises CommandError when it does not arrive, or with another checksum than expected."""
        self._number += 1
        self._arrived = self._ended = None
        pushed = monotonic()
        self._producer.push(self._order(slot, size), self._end)
        with anyio.move_on_after(_PATIENCE):
            while self._arrived is None or self._ended is None:
                if self._ended is not None and self._ended[1].error is not None:
                    raise CommandError(f"A transfer failed: {self._ended[1].error}")
                await self._change()
            return Round(pushed, self._take(expected), self._ended[0])
        raise CommandError(f"A tensor of {size} bytes did not arrive within {_PATIENCE:g} s.")

    def _order(self, slot: ArenaSlot, size: int) -> pod_pb2.Push:
        return pod_pb2.Push(
            transfer=TransferId(source=self._producer.source, number=self._number),
            slot=slot,
            length=size,
            to=self._consumer.address,
            consumer=_CONSUMER,
            key=RequestKey(request_id=f"bench-{self._number}", attempt=1),
            remaining=duration_of(_PATIENCE),
            edge=f"{_PRODUCER}>{_CONSUMER}",
        )

    def _arrive(self, arrived: pod_pb2.Arrived) -> None:
        size = arrived.length
        ref = DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=[size], length=size, arena=arrived.slot)
        tensor = self._consumer.view(ref, lambda _: None)  # returned by `_take`, which keeps it from being looked at
        self._arrived = monotonic(), ref.arena, tensor
        self._wake()

    def _take(self, expected: int | None) -> float:
        """Gives the tensor back; says when it had arrived."""
        assert self._arrived is not None  # noqa: S101  # whoever calls has seen it
        at, slot, tensor = self._arrived
        if expected is not None and checksum(tensor.data) != expected:
            raise CommandError("Other bytes arrived than were sent.")
        self._arrived = None
        del tensor
        self._consumer.return_arrived(slot)
        return at

    def _end(self, result: PushResult) -> None:
        self._ended = monotonic(), result
        self._wake()

    async def _change(self) -> None:
        """Bounded by who calls."""
        self._changed = anyio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()


@asynccontextmanager
async def open_ends(here: RunningPod, there: RunningPod) -> AsyncIterator[Ends]:
    """Raises CommandError when a relay cannot be reached."""
    async with _client(here, _PRODUCER) as producer, _client(there, _CONSUMER) as consumer:
        yield Ends(producer, consumer)


@asynccontextmanager
async def _client(pod: RunningPod, name: str) -> AsyncIterator[RelayClient]:
    client = RelayClient(pod.pod.folder, Who("bench", name, name))
    try:
        await client.connect(Deadline.after(_CONNECT, monotonic))
    except CannotConnect as error:
        raise CommandError(str(error)) from None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        yield client
        tasks.cancel_scope.cancel()
