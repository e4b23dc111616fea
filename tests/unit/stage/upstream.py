"""A stage's way in, whole but for the model and the wire: a session on a stream that the test feeds, a stage whose
scheduler notes what it is given, and tensors that arrive when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import anyio
from tests.unit.common.arena_refs import Pod, noise, octets
from tests.unit.common.relay_peer import Letters

from omni.common.v1 import request_pb2
from omni.common.v1.payload_pb2 import Payload
from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk, TransferId
from omni.relay.v1 import pod_pb2
from omni.stage.v1 import stage_pb2
from omni_common.clock import monotonic
from omni_common.errors import OmniError
from omni_common.payload import PayloadCodec
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.relay import Slots
from omni_common.request import (
    Binding,
    Envelope,
    GenerationParams,
    Modality,
    Output,
    RequestKey,
    TerminalResult,
)
from omni_common.rpc import convert
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.tensor import Tensor
from omni_common.transfer import Arrivals, Lender, Pushed, TensorSender, Way
from omni_stage.core.plan import Planner
from omni_stage.core.request import Hooks
from omni_stage.devices import Devices, DeviceSide
from omni_stage.identity import Identity
from omni_stage.incoming import DeliverSession, Reception
from omni_stage.loop import LoopThread
from omni_stage.scheduler.contract import Chunk, Done, Dropped, Incoming, Load, NewRequest, Outbox
from omni_stage.stage import Stage

SOURCE = 0xFEED
PIPELINE = PipelineConfig(
    name="pipeline",
    entry="before",
    stages=(StageConfig(name="before", stream_to=("here",)), StageConfig(name="here", terminal=Modality.TEXT)),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.TEXT}),
)


@dataclass(frozen=True)
class Parcel:
    tensor: Tensor


CODEC = PayloadCodec([Parcel])
BYTES = noise(3000)
LARGE, SMALL = Parcel(octets(BYTES)), Parcel(octets(b"x"))


class Recorder:
    """A scheduler that notes what it is given and makes nothing of it. Tensors are noted by their bytes, and kept only
    with `keep`."""

    def __init__(self) -> None:
        self.keep = False
        self.kept: list[Tensor] = []
        self.items: Letters[tuple[str, str]] = Letters()
        self._outbox: Outbox | None = None

    def start(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def stop(self) -> None: ...

    def submit(self, item: Incoming) -> None:
        match item:
            case NewRequest(key):
                self.items.put((key.request_id, "begins"))
            case Chunk(key, _, Parcel(tensor)):
                if self.keep:
                    self.kept.append(tensor)
                self.items.put((key.request_id, "large" if bytes(tensor.data) == BYTES else "small"))
            case Done(key):
                self.items.put((key.request_id, "done"))

    def abort(self, key: RequestKey) -> None:
        if self._outbox is not None:
            self._outbox([Dropped(key)])

    def load(self) -> Load:
        return Load(0, 0)

    def last_step(self) -> float:
        return monotonic()


class Owner:
    """The coordinator."""

    def __init__(self) -> None:
        self.failures: Letters[tuple[str, OmniError]] = Letters()
        self.aborts: Letters[str] = Letters()

    def output(self, key: RequestKey, index: int, output: Output) -> None: ...

    def completed(self, key: RequestKey, result: TerminalResult) -> None: ...

    def failed(self, key: RequestKey, error: OmniError) -> None:
        self.failures.put((key.request_id, error))

    def aborted(self, key: RequestKey) -> None:
        self.aborts.put(key.request_id)


class Nowhere:
    """A terminal stage's way to other stages."""

    def payload(self, envelope: Envelope, target: str, value: object, reports: object) -> None: ...

    def chunk(self, envelope: Envelope, target: str, index: int, value: object) -> None: ...

    def done(self, envelope: Envelope, target: str, chunks: int, reports: object) -> None: ...

    def busy(self, key: RequestKey) -> bool:
        return False

    def forget(self, key: RequestKey) -> None: ...

    def abandon(self, key: RequestKey) -> None: ...


class Stream:
    """The upstream replica's stream, as a `Duplex`."""

    def __init__(self) -> None:
        self.frames: Letters[stage_pb2.DeliverRequest | None] = Letters()
        self.replies: Letters[stage_pb2.DeliverResponse] = Letters()

    async def read(self) -> stage_pb2.DeliverRequest | None:
        return await self.frames.next()

    async def write(self, frame: stage_pb2.DeliverResponse) -> None:
        self.replies.put(frame)

    async def end(self) -> None: ...


class WayIn:
    """The session and all around it."""

    def __init__(self, folder: Path, loop: LoopThread, side: DeviceSide | None) -> None:
        (folder / "here").mkdir()
        (folder / "there").mkdir()
        here, there = Pod(folder / "here"), Pod(folder / "there")
        self.returned: Letters[ArenaSlot] = Letters()
        self.scheduler, self.owner, self.stream = Recorder(), Owner(), Stream()
        identity = Identity("pipeline", "here", "here-0", "pod-0", "node", "here.invalid:1", 8, "relay.invalid:1")
        self.stage = Stage(identity, downstream=Nowhere(), clock=monotonic)
        self.stage.attach("c", self.owner)
        self.stage.open(Planner(PIPELINE, "here", "here-0"), Hooks(), self.scheduler)
        self.scheduler.start(self.stage.on_outgoing)
        self.arrivals = Arrivals(
            self.returned.put, is_over=self.stage.is_over, is_known=self.stage.knows, clock=monotonic
        )
        self.stage.connect(self.arrivals)
        self.reader = here.reader()
        reception = Reception(self.stage, CODEC, self.reader, self.arrivals, loop, monotonic, 1 << 20, Devices(side))
        self.session = DeliverSession(reception)
        self._arrived = Slots(here.arena, here.writer(here.grant()))
        self._sender = TensorSender(Slots(there.arena, there.writer(there.grant())), SOURCE, inline_limit=100)
        self._indices: dict[str, count[int]] = {}

    def send(self, request: str, parcel: Parcel) -> tuple[Pushed, ...]:
        """One chunk of the request; its first one introduces it."""
        encoded = self._sender.encode(CODEC, parcel, request, Way.RELAYS)
        self.chunk(request, encoded.payload)
        return encoded.pushes

    def lend(self, request: str, parcel: Parcel, lender: Lender) -> int:
        """As `send`, of a tensor that stays on its device; its number."""
        encoded = self._sender.encode(CODEC, parcel, request, Way.POD, lender=lender)
        self.chunk(request, encoded.payload)
        [number] = encoded.devices
        return number

    def chunk(self, request: str, payload: Payload) -> None:
        index = next(self._indices.setdefault(request, count()))
        chunk = stage_pb2.ChunkEvent(index=index, payload=payload)
        self._event(stage_pb2.DeliverEvent(key=_key(request), chunk=chunk, envelope=self._envelope(request)))

    def end(self, request: str, chunks: int) -> None:
        self._event(stage_pb2.DeliverEvent(key=_key(request), done=stage_pb2.DoneEvent(chunks=chunks)))

    def blob(self, request: str, number: int, checksum: int) -> None:
        """In place of a push that failed."""
        self._event(
            stage_pb2.DeliverEvent(
                blob=BlobChunk(blob=number, request_id=request, total_length=len(BYTES), data=BYTES, checksum=checksum)
            )
        )

    def arrive(self, request: str, pushed: Pushed, data: bytes = BYTES) -> None:
        """As the relay does it."""
        slot, memory = self._arrived.reserve(len(data), float("inf"))
        memory[:] = data
        transfer = TransferId(source=SOURCE, number=pushed.number)
        self.arrivals.add(pod_pb2.Arrived(transfer=transfer, slot=slot, length=len(data), key=_key(request)))

    def hang_up(self) -> None:
        self.stream.frames.put(None)

    def say_hello(self, pod: str) -> None:
        hello = stage_pb2.DeliverHello(stage="before", pod=pod, contract_version=CONTRACT_VERSION)
        self._event(stage_pb2.DeliverEvent(hello=hello))

    def _event(self, event: stage_pb2.DeliverEvent) -> None:
        self.stream.frames.put(stage_pb2.DeliverRequest(events=[event]))

    def _envelope(self, request: str) -> request_pb2.Envelope:
        now = monotonic()
        here = Binding("here-0", "here.invalid:1", "pod-0", "relay.invalid:1")
        return convert.render_envelope(
            Envelope(
                key=RequestKey(request),
                pipeline="pipeline",
                coordinator="c",
                deadline=now + 60,
                origin=now,
                bindings={"here": here, "before": here},
                terminals=frozenset({"here"}),
                params=GenerationParams(),
                output_credits=1,
            ),
            now,
        )


@asynccontextmanager
async def way_in(folder: Path, *, side: DeviceSide | None = None, pod: str = "pod-1") -> AsyncIterator[WayIn]:
    loop = LoopThread()
    way = WayIn(folder, loop, side)
    way.say_hello(pod)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        tasks.start_soon(way.session.run, way.stream)
        yield way
        tasks.cancel_scope.cancel()


def _key(request: str) -> request_pb2.RequestKey:
    return request_pb2.RequestKey(request_id=request)
