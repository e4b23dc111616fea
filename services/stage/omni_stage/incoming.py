"""What upstream stages deliver here: one session per stream, which answers with credits and releases.

An event may come before the tensors that the relays move for it. It waits for them then, and the later events of its
request on this stream behind it; those of other requests go on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from omni.common.v1 import request_pb2, tensor_pb2
from omni.stage.v1 import stage_pb2
from omni_common.clock import Clock
from omni_common.errors import Internal, OmniError, Reason, StageUnavailable, Unsupported
from omni_common.payload import PayloadCodec
from omni_common.request import RequestKey
from omni_common.rpc import convert
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.duplex import Duplex, PeerGone
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.session import exchange
from omni_common.telemetry import names
from omni_common.transfer import Arrivals, TensorReceiver
from omni_common.transfer.receiver import Views
from omni_stage.core.waiting import Waiting
from omni_stage.devices import Devices, DeviceSide
from omni_stage.fetches import Fetches
from omni_stage.loop import LoopThread
from omni_stage.stage import Stage

logger = logging.getLogger(__name__)

Event = stage_pb2.DeliverEvent


@dataclass(frozen=True, slots=True)
class Reception:
    """What all sessions of a stage share. `views` and `arrivals` are None where the pod has no arena."""

    stage: Stage
    codec: PayloadCodec
    views: Views | None
    arrivals: Arrivals | None
    loop: LoopThread
    clock: Clock
    max_bytes: int
    devices: Devices = field(default_factory=Devices)


class DeliverSession:
    """One upstream replica's stream."""

    def __init__(self, reception: Reception) -> None:
        self._stage = reception.stage
        self._codec = reception.codec
        self._arrivals = reception.arrivals
        self._clock = reception.clock
        self._loop = reception.loop
        self._replies: FrameWriter[stage_pb2.DeliverReply] = FrameWriter()
        self._fetches = None if reception.devices.side is None else self._reach(reception.devices.side)
        self._receiver = TensorReceiver(
            reception.views, reception.max_bytes, self._released_somewhere, reception.arrivals, self._fetches
        )
        self._waiting: Waiting[Event] = Waiting()
        self._ended = False
        self._source = ""
        self._same_pod = False

    async def run(self, duplex: Duplex[stage_pb2.DeliverRequest, stage_pb2.DeliverResponse]) -> None:
        """Serves the stream until it ends. What waits for tensors of the relays' goes on waiting for them then: an
        upstream replica that is done with its work leaves before they are looked at."""
        self._stage.connect(self)
        try:
            await exchange(
                duplex,
                self._replies,
                frame=lambda replies: stage_pb2.DeliverResponse(replies=replies),
                handle=self._frame,
            )
        finally:
            self._ended = True
            if self._fetches is not None:
                self._fetches.lose()
            self._leave_if_done()

    # As the request's upstream.

    def credit(self, key: RequestKey, chunks: int) -> None:
        self._reply(
            stage_pb2.DeliverReply(credit=stage_pb2.CreditReply(key=convert.render_key(key), chunks=chunks)),
            lane=key.lane,
        )

    def drop(self, key: RequestKey) -> None:
        """The request is over: what came of it, and of its tensors, is not waited for."""
        for event in self._waiting.drop(key):
            self._discard(event)
        self._receiver.drop(key.lane)
        if self._fetches is not None:
            self._fetches.drop(key)
        self._leave_if_done()

    # Frames.

    def _frame(self, frame: stage_pb2.DeliverRequest) -> None:
        for event in frame.events:
            self._event(event)

    def _event(self, event: Event) -> None:
        match event.WhichOneof("event"):
            case "hello":
                self._hello(event.hello)
            case "blob":
                self._blob(event.blob)
            case "payload" | "chunk" | "done":
                self._of_request(event)
            case _:
                logger.debug("an event of an unknown kind was skipped", extra={"source": self._source})

    def _hello(self, hello: stage_pb2.DeliverHello) -> None:
        if hello.contract_version != CONTRACT_VERSION:
            theirs = hello.contract_version
            raise Unsupported(f"Stage '{hello.stage}' speaks contract {theirs}, not {CONTRACT_VERSION}.")
        self._source = hello.stage
        self._same_pod = hello.pod == self._stage.identity.pod
        if self._fetches is not None and self._same_pod:
            reach = self._fetches.reach
            reply = stage_pb2.DeviceReply(device=reach.device, realm=reach.realm, pairs=reach.pairs)
            self._reply(stage_pb2.DeliverReply(device=reply))

    def _blob(self, piece: tensor_pb2.BlobChunk) -> None:
        if self._stage.is_lane_over(piece.request_id):
            return
        try:
            complete = self._receiver.add(piece)
        except OmniError as error:
            self._stage.fail_lane(piece.request_id, error)
            return
        if complete:
            if self._fetches is not None:
                self._fetches.came_as_blob(piece.blob)
            for key in [key for key in self._waiting.keys if key.lane == piece.request_id]:
                self._retry(key)

    def _of_request(self, event: Event) -> None:
        key = convert.parse_key(event.key)
        if event.HasField("envelope"):
            self._introduce(event.envelope)
        if not self._stage.knows(key):
            self._stage.note_late_event()
            self._discard(event)
            return
        self._begin_fetches(key, event)
        if key in self._waiting or not self._is_ready(key, event):
            own = Event()
            own.CopyFrom(event)  # a part of a frame would keep all of it in memory
            self._waiting.put(key, own)
        else:
            self._hand_over(key, event)

    def _introduce(self, message: request_pb2.Envelope) -> None:
        envelope = convert.parse_envelope(message, self._clock())
        if self._stage.introduce(envelope) is None and not self._stage.is_over(envelope.key):
            self._refuse(envelope.key)

    def _is_ready(self, key: RequestKey, event: Event) -> bool:
        """Whether its tensors are here. If not, somebody will ask again as each of them comes."""
        if self._same_pod:
            return self._fetches is None or not self._on_devices(event)
        if self._arrivals is None:
            return True
        missing = [*self._receiver.missing(event.payload.payload), *self._receiver.missing(event.chunk.payload)]
        for transfer in missing:
            self._arrivals.expect(transfer, key, self._retry)
        return not missing

    def _begin_fetches(self, key: RequestKey, event: Event) -> None:
        """What is on another stage's device comes while the event waits behind others."""
        if self._fetches is not None and (refs := self._on_devices(event)):
            self._fetches.begin(key, refs, self._stage.deadline_of(key))

    def _on_devices(self, event: Event) -> list[tensor_pb2.DataRef]:
        return [*self._receiver.on_devices(event.payload.payload), *self._receiver.on_devices(event.chunk.payload)]

    def _retry(self, key: RequestKey) -> None:
        """A tensor has come that an event of the request waits for."""
        while (event := self._waiting.first(key)) is not None and self._is_ready(key, event):
            self._waiting.pop(key)
            self._hand_over(key, event)
        self._leave_if_done()

    def _hand_over(self, key: RequestKey, event: Event) -> None:
        try:
            self._pass_on(key, event)
        except OmniError as error:
            if error.reason is Reason.LEASE_LOST:
                names.CHECKSUM_FAILURES.inc()
            self._stage.fail(key, error)

    def _pass_on(self, key: RequestKey, event: Event) -> None:
        match event.WhichOneof("event"):
            case "payload":
                value = self._receiver.decode(self._codec, event.payload.payload, key)
                reports = [convert.parse_report(report) for report in event.payload.reports]
                self._stage.payload(key, self._source, value, reports, self)
            case "chunk":
                value = self._receiver.decode(self._codec, event.chunk.payload, key)
                self._stage.chunk(key, self._source, event.chunk.index, value, self)
            case "done":
                reports = [convert.parse_report(report) for report in event.done.reports]
                self._stage.done(key, self._source, event.done.chunks, reports, self)

    def _discard(self, event: Event) -> None:
        self._receiver.discard(event.payload.payload)
        self._receiver.discard(event.chunk.payload)

    def _refuse(self, key: RequestKey) -> None:
        """No coordinator that this replica knows owns the request, so the sender has to report it."""
        failure = convert.failure_of(Internal(f"Stage '{self._stage.identity.stage}' does not know the coordinator."))
        reply = stage_pb2.FailureReply(key=convert.render_key(key), failure=failure)
        self._reply(stage_pb2.DeliverReply(failure=reply), lane=key.lane)

    def _leave_if_done(self) -> None:
        if self._ended and not self._waiting:
            self._stage.disconnect(self)

    def _reach(self, side: DeviceSide) -> Fetches:
        return Fetches(side, self._loop, reply=self._reply, arrived=self._retry, fail=self._lost)

    def _lost(self, key: RequestKey) -> None:
        """What the request needs, or looks at, was on the device of a process that is gone."""
        for event in self._waiting.drop(key):
            self._discard(event)
        self._stage.fail(key, StageUnavailable(self._source, "is gone, and what it had lent with it"))
        self._leave_if_done()

    # Releases.

    def _released_somewhere(self, slot: tensor_pb2.ArenaSlot) -> None:
        """The last view of a slot is gone, on whatever thread dropped it."""
        self._loop.call(self._released, slot)

    def _released(self, slot: tensor_pb2.ArenaSlot) -> None:
        if not self._ended:
            self._reply(stage_pb2.DeliverReply(release=stage_pb2.ReleaseReply(slots=[slot])))

    def _reply(self, reply: stage_pb2.DeliverReply, *, lane: str = "") -> None:
        try:
            self._replies.put(reply, lane=lane)
        except PeerGone:
            logger.debug("an upstream replica is gone, so it gets no answer", extra={"source": self._source})
