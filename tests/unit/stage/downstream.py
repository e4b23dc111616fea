"""A stage's way out, whole but for the stage: real links over real gRPC to a replica that notes what it gets, beside a
relay that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from tests.unit.common.arena_refs import noise, octets
from tests.unit.common.relay_peer import Letters, PeerLine, RelayPeer, connected

from omni.common.v1.tensor_pb2 import ArenaSlot, TransferId
from omni.relay.v1 import pod_pb2
from omni.stage.v1 import stage_pb2, stage_pb2_grpc
from omni_common.arena.extents import render_extent
from omni_common.clock import monotonic
from omni_common.errors import OmniError
from omni_common.payload import PayloadCodec
from omni_common.relay import RelayClient
from omni_common.request import Binding, Envelope, GenerationParams, RequestKey
from omni_common.rpc import convert
from omni_common.rpc.duplex import server_duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.server import open_server
from omni_common.rpc.session import exchange
from omni_common.tensor import Tensor
from omni_common.transfer import TensorSender
from omni_stage.devices import Devices, DeviceSide
from omni_stage.identity import Identity
from omni_stage.outgoing import PeerLinks
from omni_stage.peer_link import Outfit

TARGET = "next"
POD, ELSEWHERE = "pod-0", "pod-1"


@dataclass(frozen=True)
class Parcel:
    """What crosses the edge."""

    tensor: Tensor
    note: str = ""


@dataclass(frozen=True)
class Two:
    """As `Parcel`."""

    first: Tensor
    second: Tensor


CODEC = PayloadCodec([Parcel, Two])
BYTES = noise(30_000)
LARGE = Parcel(octets(BYTES))
SMALL = Parcel(octets(b"x"))


class Heard:
    """The stage, as its links see it."""

    def __init__(self) -> None:
        self.granted: Letters[tuple[RequestKey, int]] = Letters()
        self.failed: Letters[tuple[RequestKey, OmniError]] = Letters()
        self.over: Letters[tuple[RequestKey, OmniError | None]] = Letters()
        """What has been delivered, and what was lost and why."""

    def grant(self, key: RequestKey, target: str, chunks: int) -> None:
        self.granted.put((key, chunks))

    def fail(self, key: RequestKey, error: OmniError) -> None:
        self.failed.put((key, error))

    def delivered(self, key: RequestKey) -> None:
        self.over.put((key, None))

    def lost(self, key: RequestKey, error: OmniError) -> None:
        self.over.put((key, error))


class NextReplica(stage_pb2_grpc.StageServiceServicer):
    """Notes every event; answers what the test says."""

    def __init__(self) -> None:
        self.events: Letters[stage_pb2.DeliverEvent] = Letters()
        self._replies: FrameWriter[stage_pb2.DeliverReply] = FrameWriter()

    async def Deliver(self, _: Any, context: Any) -> None:  # type: ignore[override]
        await exchange(
            server_duplex(context),
            self._replies,
            frame=lambda replies: stage_pb2.DeliverResponse(replies=replies),
            handle=self._frame,
        )

    async def next(self) -> stage_pb2.DeliverEvent:
        """The next event of a request."""
        while (event := await self.events.next()).HasField("hello"):
            pass
        return event

    def release(self, slot: ArenaSlot) -> None:
        self._replies.put(stage_pb2.DeliverReply(release=stage_pb2.ReleaseReply(slots=[slot])))

    def credit(self, key: RequestKey) -> None:
        """A round trip: when it is heard, all that was said before it has been."""
        credit = stage_pb2.CreditReply(key=convert.render_key(key), chunks=1)
        self._replies.put(stage_pb2.DeliverReply(credit=credit))

    def say(self, reply: stage_pb2.DeliverReply) -> None:
        self._replies.put(reply)

    def leave(self) -> None:
        self._replies.close()

    def _frame(self, frame: stage_pb2.DeliverRequest) -> None:
        for event in frame.events:
            self.events.put(event)


@dataclass(frozen=True)
class Way:
    """One end of it, and the other; `relay` is the relay's end of the stage's line."""

    links: PeerLinks
    heard: Heard
    client: RelayClient
    peer: RelayPeer
    relay: PeerLine
    replica: NextReplica
    binding: Binding

    def envelope(self, request: str, *, seconds: float = 60.0) -> Envelope:
        now = monotonic()
        return Envelope(
            key=RequestKey(request),
            pipeline="pipeline",
            coordinator="c",
            deadline=now + seconds,
            origin=now,
            bindings={TARGET: self.binding},
            terminals=frozenset({TARGET}),
            params=GenerationParams(),
            output_credits=1,
        )

    async def grant(self, *indices: int) -> None:
        """Extents of 64 KiB each, two large tensors."""
        for index in indices:
            self.relay.say(extent=render_extent(self.peer.extent(index)))
        while len(self.client.slots.extents) < len(indices):
            await anyio.lowlevel.checkpoint()

    async def pushed(self) -> pod_pb2.Push:
        while not (message := await self.relay.next()).HasField("push"):
            pass
        return message.push

    def end_push(self, number: int, error: OmniError | None = None) -> None:
        transfer = TransferId(source=self.client.source, number=number)
        failure = None if error is None else convert.failure_of(error)
        self.relay.say(ended=pod_pb2.PushEnded(transfer=transfer, failure=failure, transport="tcp"))

    async def until_free(self) -> None:
        """Nothing is leased any more."""
        with anyio.fail_after(10):
            while self.client.slots.leases:  # noqa: ASYNC110  # slots come back by several ways, without an event
                await anyio.sleep(0.01)


@asynccontextmanager
async def way_out(
    folder: Path, *, pod: str = ELSEWHERE, inline_limit: int = 1000, side: DeviceSide | None = None
) -> AsyncIterator[Way]:
    """From a stage in POD to a replica in `pod`."""
    peer, replica, heard = RelayPeer(folder), NextReplica(), Heard()
    server = await open_server("127.0.0.1:0", services=[])
    stage_pb2_grpc.add_StageServiceServicer_to_server(replica, server.grpc)
    await server.start()
    try:
        async with connected(peer) as (client, line), anyio.create_task_group() as tasks:
            identity = Identity("pipeline", "here", "here-0", POD, "node", "here.invalid:1", 8, client.address)
            tensors = TensorSender(client.slots, client.source, inline_limit=inline_limit)
            outfit = Outfit(identity, CODEC, tensors, client, monotonic, devices=Devices(side))
            links = PeerLinks(outfit, tasks=tasks)
            links.answer_to(heard)
            binding = Binding("next-0", f"127.0.0.1:{server.port}", pod, "relay.invalid:2")
            yield Way(links, heard, client, peer, line, replica, binding)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop(grace=0)
        peer.close()


def keys(events: Collection[stage_pb2.DeliverEvent]) -> list[str]:
    return [event.key.request_id for event in events]
