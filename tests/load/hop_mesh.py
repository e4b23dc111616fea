"""Both ends of a hop as the stages make it: a Deliver stream, frames, and tensors inline, in the arena or as blobs.

The producer is `MeshHop`. The consumer is a process of its own: `python -m tests.load.hop_mesh ARENA` prints the port
it serves. What is left out of a stage is its scheduler; what is left out of a request is its envelope, which only its
first event has.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from omni.common.v1 import tensor_pb2
from omni.stage.v1 import stage_pb2, stage_pb2_grpc
from omni_common.arena import ArenaReader
from omni_common.clock import monotonic
from omni_common.payload import PayloadCodec
from omni_common.request import RequestKey
from omni_common.rpc import convert
from omni_common.rpc.channel import open_channel
from omni_common.rpc.duplex import Duplex, server_duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.server import open_server
from omni_common.rpc.session import client_session, exchange
from omni_common.tensor import Tensor
from omni_common.transfer import TensorReceiver, TensorSender

SERVICE = "omni.stage.v1.StageService"
REQUEST = RequestKey("bench")
# A consumer that frees what it got at once lets the producer write the same cached bytes for ever. No cache is as
# large as this.
HELD_BYTES = 128 << 20
MAX_BYTES = 256 << 20
LEASE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the hop carries."""

    body: Tensor


CODEC = PayloadCodec((Parcel,))


class MeshHop:
    """The sending end of one stream. One message at a time."""

    def __init__(self, tensors: TensorSender, *, same_pod: bool) -> None:
        self._tensors = tensors
        self._same_pod = same_pod
        self._out: FrameWriter[stage_pb2.DeliverEvent] = FrameWriter(lambda piece: stage_pb2.DeliverEvent(blob=piece))
        self._sent = 0
        self._arrived = anyio.Event()

    async def send(self, body: Tensor) -> None:
        """Returns when the receiver has the tensor and says so."""
        self._arrived = anyio.Event()
        encoded = self._tensors.encode(
            CODEC,
            Parcel(body),
            REQUEST.request_id,
            same_pod=self._same_pod,
            expires=monotonic() + LEASE_SECONDS,
        )
        event = stage_pb2.DeliverEvent(
            key=convert.render_key(REQUEST), chunk=stage_pb2.ChunkEvent(index=self._sent, payload=encoded.payload)
        )
        self._sent += 1
        self._out.put(event, lane=REQUEST.request_id, blobs=encoded.blobs)
        await self._arrived.wait()  # the driver holds the deadline of the whole measurement

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
                    self._arrived.set()
                case "release":
                    self._tensors.release(reply.release.slots)


@asynccontextmanager
async def mesh_hop(port: int, tensors: TensorSender, *, same_pod: bool) -> AsyncIterator[MeshHop]:
    """A stream of its own to the consumer at that port."""
    hop = MeshHop(tensors, same_pod=same_pod)
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

    def __init__(self, reader: ArenaReader, held: deque[Tensor]) -> None:
        self._loop = asyncio.get_running_loop()
        self._replies: FrameWriter[stage_pb2.DeliverReply] = FrameWriter()
        self._receiver = TensorReceiver(reader, MAX_BYTES, self._released_somewhere)
        self._held = held

    async def run(self, duplex: Duplex[stage_pb2.DeliverRequest, stage_pb2.DeliverResponse]) -> None:
        await exchange(
            duplex, self._replies, frame=lambda replies: stage_pb2.DeliverResponse(replies=replies), handle=self._frame
        )

    def _frame(self, frame: stage_pb2.DeliverRequest) -> None:
        for event in frame.events:
            if event.HasField("blob"):
                self._receiver.add(event.blob)
            else:
                self._take(event)

    def _take(self, event: stage_pb2.DeliverEvent) -> None:
        parcel = self._receiver.decode(CODEC, event.chunk.payload)
        assert isinstance(parcel, Parcel)
        _touch(parcel.body)
        self._hold(parcel.body)
        credit = stage_pb2.CreditReply(key=event.key, chunks=1)
        self._replies.put(stage_pb2.DeliverReply(credit=credit), lane=event.key.request_id)

    def _hold(self, body: Tensor) -> None:
        if self._held and self._held[0].nbytes != body.nbytes:
            self._held.clear()
        while self._held and (len(self._held) + 1) * body.nbytes > HELD_BYTES:
            self._held.popleft()
        self._held.append(body)

    def _released_somewhere(self, slot: tensor_pb2.ArenaSlot) -> None:
        self._loop.call_soon_threadsafe(self._release, slot)

    def _release(self, slot: tensor_pb2.ArenaSlot) -> None:
        self._replies.put(stage_pb2.DeliverReply(release=stage_pb2.ReleaseReply(slots=[slot])))


class _Consumer(stage_pb2_grpc.StageServiceServicer):
    def __init__(self, reader: ArenaReader) -> None:
        self._reader = reader

    async def Deliver(self, _: Any, context: Any) -> None:  # type: ignore[override]  # grpc.aio's reader-writer style
        await _Session(self._reader, deque()).run(server_duplex(context))


def _touch(tensor: Tensor) -> None:
    """Reads both ends, as a model would begin to."""
    if tensor.data[0] + tensor.data[-1] > 510:
        raise AssertionError("two bytes are at most 510")


async def _serve(arena: Path) -> None:
    server = await open_server("127.0.0.1:0", services=[SERVICE])
    stage_pb2_grpc.add_StageServiceServicer_to_server(_Consumer(ArenaReader(arena)), server.grpc)
    await server.start()
    print(server.port, flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]), backend_options={"use_uvloop": True})
