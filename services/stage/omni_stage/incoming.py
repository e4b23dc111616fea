"""What upstream stages deliver here: one session per stream, which answers with credits and releases."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from omni.common.v1 import request_pb2, tensor_pb2
from omni.stage.v1 import stage_pb2
from omni_common.arena import ArenaReader
from omni_common.errors import Internal, OmniError, Reason, Unsupported
from omni_common.payload import PayloadCodec
from omni_common.request import RequestKey
from omni_common.rpc import convert
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.duplex import Duplex, PeerGone
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.session import exchange
from omni_common.telemetry import names
from omni_common.transfer import TensorReceiver
from omni_stage.stage import Stage

if TYPE_CHECKING:
    from omni_common.clock import Clock
    from omni_stage.loop import LoopThread

logger = logging.getLogger(__name__)

Event = stage_pb2.DeliverEvent


class DeliverSession:
    """One upstream replica's stream."""

    def __init__(
        self,
        stage: Stage,
        codec: PayloadCodec,
        reader: ArenaReader | None,
        *,
        loop: LoopThread,
        clock: Clock,
        max_bytes: int,
    ) -> None:
        self._stage = stage
        self._codec = codec
        self._clock = clock
        self._loop = loop
        self._replies: FrameWriter[stage_pb2.DeliverReply] = FrameWriter()
        self._receiver = TensorReceiver(reader, max_bytes, self._released_somewhere)
        self._source = ""

    async def run(self, duplex: Duplex[stage_pb2.DeliverRequest, stage_pb2.DeliverResponse]) -> None:
        """Serves the stream until it ends."""

        self._stage.connect(self)
        try:
            await self._exchange(duplex)
        finally:
            self._stage.disconnect(self)

    async def _exchange(self, duplex: Duplex[stage_pb2.DeliverRequest, stage_pb2.DeliverResponse]) -> None:
        await exchange(
            duplex,
            self._replies,
            frame=lambda replies: stage_pb2.DeliverResponse(replies=replies),
            handle=self._frame,
        )

    # As the request's upstream.

    def credit(self, key: RequestKey, chunks: int) -> None:
        self._reply(
            stage_pb2.DeliverReply(credit=stage_pb2.CreditReply(key=convert.render_key(key), chunks=chunks)),
            lane=key.request_id,
        )

    def drop(self, request_id: str) -> None:
        """The request is over: what came of its tensors is not waited for."""
        self._receiver.drop(request_id)

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

    def _blob(self, piece: tensor_pb2.BlobChunk) -> None:
        if self._stage.is_request_over(piece.request_id):
            return
        try:
            self._receiver.add(piece)
        except OmniError as error:
            self._stage.fail_request(piece.request_id, error)

    def _of_request(self, event: Event) -> None:
        key = convert.parse_key(event.key)
        if event.HasField("envelope"):
            self._introduce(event.envelope)
        try:
            self._hand_over(key, event)
        except OmniError as error:
            if error.reason is Reason.LEASE_LOST:
                names.CHECKSUM_FAILURES.inc()
            self._stage.fail(key, error)

    def _introduce(self, message: request_pb2.Envelope) -> None:
        envelope = convert.parse_envelope(message, self._clock())
        if self._stage.introduce(envelope) is None and not self._stage.is_over(envelope.key):
            self._refuse(envelope.key)

    def _hand_over(self, key: RequestKey, event: Event) -> None:
        if not self._stage.knows(key):
            self._stage.note_late_event()
            self._receiver.discard(event.payload.payload)
            self._receiver.discard(event.chunk.payload)
            return
        match event.WhichOneof("event"):
            case "payload":
                value = self._receiver.decode(self._codec, event.payload.payload)
                reports = [convert.parse_report(report) for report in event.payload.reports]
                self._stage.payload(key, self._source, value, reports, self)
            case "chunk":
                value = self._receiver.decode(self._codec, event.chunk.payload)
                self._stage.chunk(key, self._source, event.chunk.index, value, self)
            case "done":
                reports = [convert.parse_report(report) for report in event.done.reports]
                self._stage.done(key, self._source, event.done.chunks, reports, self)

    def _refuse(self, key: RequestKey) -> None:
        """No coordinator that this replica knows owns the request, so the sender has to report it."""
        failure = convert.failure_of(Internal(f"Stage '{self._stage.identity.stage}' does not know the coordinator."))
        reply = stage_pb2.FailureReply(key=convert.render_key(key), failure=failure)
        self._reply(stage_pb2.DeliverReply(failure=reply), lane=key.request_id)

    # Releases.

    def _released_somewhere(self, slot: tensor_pb2.ArenaSlot) -> None:
        """The last view of a slot is gone, on whatever thread dropped it."""
        self._loop.call(self._released, slot)

    def _released(self, slot: tensor_pb2.ArenaSlot) -> None:
        self._reply(stage_pb2.DeliverReply(release=stage_pb2.ReleaseReply(slots=[slot])))

    def _reply(self, reply: stage_pb2.DeliverReply, *, lane: str = "") -> None:
        try:
            self._replies.put(reply, lane=lane)
        except PeerGone:
            logger.debug("an upstream replica is gone, so it gets no answer", extra={"source": self._source})
