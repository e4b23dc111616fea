"""Both ends of a hop as the stages make it: a Deliver stream, frames, and tensors inline, in the arena or as blobs.

The producer is `MeshHop`. The consumer is a process of its own: `python -m tests.load.hop_mesh FOLDER EPOCH` takes
tensors from the arena of that epoch and prints the port that it serves; `--copy-out` makes it copy each. What is left
out of a stage is its scheduler; what is left out of a request is its envelope, which only its first event has.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from tests.load.arena import open_reader
from tests.load.held import Held

from omni.common.v1 import tensor_pb2
from omni.stage.v1 import stage_pb2, stage_pb2_grpc
from omni_common.allocator import keep_freed_memory
from omni_common.arena import ArenaReader
from omni_common.payload import PayloadCodec
from omni_common.relay.slots import Slots
from omni_common.request import RequestKey
from omni_common.rpc import convert
from omni_common.rpc.channel import open_channel
from omni_common.rpc.duplex import Duplex, server_duplex
from omni_common.rpc.frames import Blob, FrameWriter
from omni_common.rpc.server import open_server
from omni_common.rpc.session import client_session, exchange
from omni_common.tensor import Tensor
from omni_common.transfer import TensorReceiver, TensorSender, Way
from omni_stage.loop import LoopThread

SERVICE = "omni.stage.v1.StageService"
REQUEST = RequestKey("bench")
MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the hop carries."""

    body: Tensor


CODEC = PayloadCodec((Parcel,))


class MeshHop:
    """The sending end of one stream."""

    def __init__(self, tensors: TensorSender, slots: Slots, way: Way) -> None:
        self._tensors = tensors
        self._slots = slots
        self._way = way
        self._out: FrameWriter[stage_pb2.DeliverEvent] = FrameWriter(lambda piece: stage_pb2.DeliverEvent(blob=piece))
        self._sent = 0
        self._under_way: deque[anyio.Event] = deque()

    async def tell(self) -> None:
        """A control event without a tensor. Returns when the receiver has answered it."""
        await self._put(stage_pb2.DeliverEvent(key=convert.render_key(REQUEST), done=stage_pb2.DoneEvent()))

    async def send(self, body: Tensor) -> None:
        """Returns when the receiver has the tensor and says so."""
        encoded = self._tensors.encode(CODEC, Parcel(body), REQUEST.request_id, self._way)
        event = stage_pb2.DeliverEvent(
            key=convert.render_key(REQUEST), chunk=stage_pb2.ChunkEvent(index=self._sent, payload=encoded.payload)
        )
        self._sent += 1
        await self._put(event, encoded.blobs)

    async def _put(self, event: stage_pb2.DeliverEvent, blobs: Sequence[Blob] = ()) -> None:
        arrived = anyio.Event()
        self._under_way.append(arrived)
        self._out.put(event, lane=REQUEST.request_id, blobs=blobs)
        await arrived.wait()  # the driver holds the deadline of the whole measurement

    async def run(self, duplex: Duplex[stage_pb2.DeliverResponse, stage_pb2.DeliverRequest]) -> None:
        await exchange(
            duplex, self._out, frame=lambda events: stage_pb2.DeliverRequest(events=events), handle=self._answer
        )

    def close(self) -> None:
        self._out.close()

    def _answer(self, frame: stage_pb2.DeliverResponse) -> None:
        for reply in frame.replies:
            match reply.WhichOneof("reply"):
                case "credit":
                    self._under_way.popleft().set()  # the receiver answers in the order of the messages
                case "release":
                    for slot in reply.release.slots:
                        self._slots.release(slot)


@asynccontextmanager
async def mesh_hop(port: int, tensors: TensorSender, slots: Slots, way: Way = Way.POD) -> AsyncIterator[MeshHop]:
    """A stream of its own to the consumer at that port."""
    hop = MeshHop(tensors, slots, way)
    async with (
        open_channel(f"127.0.0.1:{port}") as channel,
        client_session(stage_pb2_grpc.StageServiceStub(channel).Deliver()) as duplex,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(hop.run, duplex)
        yield hop
        hop.close()


class _Session:
    """The receiving end of one stream: takes each tensor as a stage does and returns a credit."""

    def __init__(self, reader: ArenaReader, held: Held) -> None:
        self._calls = LoopThread()
        self._replies: FrameWriter[stage_pb2.DeliverReply] = FrameWriter()
        self._receiver = TensorReceiver(reader, MAX_BYTES, self._released_somewhere)
        self._held = held

    async def run(self, duplex: Duplex[stage_pb2.DeliverRequest, stage_pb2.DeliverResponse]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._calls.run)
            await exchange(duplex, self._replies, frame=_response, handle=self._frame)
            tasks.cancel_scope.cancel()

    def _frame(self, frame: stage_pb2.DeliverRequest) -> None:
        for event in frame.events:
            match event.WhichOneof("event"):
                case "blob":
                    self._receiver.add(event.blob)
                case "chunk":
                    self._take(event)
                    self._answer(event)
                case "done":
                    self._answer(event)

    def _take(self, event: stage_pb2.DeliverEvent) -> None:
        parcel = self._receiver.decode(CODEC, event.chunk.payload)
        assert isinstance(parcel, Parcel)
        self._held.look(parcel.body.data)
        self._held.keep(parcel.body.data)

    def _answer(self, event: stage_pb2.DeliverEvent) -> None:
        credit = stage_pb2.CreditReply(key=event.key, chunks=1)
        self._replies.put(stage_pb2.DeliverReply(credit=credit), lane=event.key.request_id)

    def _released_somewhere(self, slot: tensor_pb2.ArenaSlot) -> None:
        self._calls.call(self._release, slot)

    def _release(self, slot: tensor_pb2.ArenaSlot) -> None:
        self._replies.put(stage_pb2.DeliverReply(release=stage_pb2.ReleaseReply(slots=[slot])))


def _response(replies: list[stage_pb2.DeliverReply]) -> stage_pb2.DeliverResponse:
    return stage_pb2.DeliverResponse(replies=replies)


class _Consumer(stage_pb2_grpc.StageServiceServicer):
    def __init__(self, reader: ArenaReader, *, copy_out: bool) -> None:
        self._reader = reader
        self._copy_out = copy_out

    async def Deliver(self, _: Any, context: Any) -> None:  # type: ignore[override]  # grpc.aio's reader-writer style
        await _Session(self._reader, Held(copy_out=self._copy_out)).run(server_duplex(context))


async def _serve(folder: Path, epoch: int, copy_out: bool) -> None:
    server = await open_server("127.0.0.1:0", services=[SERVICE])
    consumer = _Consumer(open_reader(folder, epoch), copy_out=copy_out)
    stage_pb2_grpc.add_StageServiceServicer_to_server(consumer, server.grpc)
    await server.start()
    print(server.port, flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    keep_freed_memory()
    anyio.run(
        _serve, Path(sys.argv[1]), int(sys.argv[2]), "--copy-out" in sys.argv, backend_options={"use_uvloop": True}
    )
