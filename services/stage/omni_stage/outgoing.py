"""What this stage delivers to the next ones: one Deliver stream per downstream replica, opened when first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import anyio
import anyio.abc

from omni.common.v1 import payload_pb2
from omni.stage.v1 import stage_pb2, stage_pb2_grpc
from omni_common.arena import ArenaWriter
from omni_common.clock import Clock
from omni_common.errors import OmniError, StageUnavailable
from omni_common.payload import PayloadCodec
from omni_common.request import Binding, Envelope, RequestKey, StageReport
from omni_common.rpc import convert
from omni_common.rpc.channel import open_channel
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.frames import Blob, FrameWriter
from omni_common.rpc.session import client_session, exchange
from omni_common.telemetry import names
from omni_common.transfer import Encoded, TensorSender
from omni_stage.identity import Identity

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Who hears what the downstream replicas answer: the stage."""

    def grant(self, key: RequestKey, target: str, chunks: int) -> None: ...
    def fail(self, key: RequestKey, error: OmniError) -> None: ...


class PeerLink:
    """The stream to one downstream replica."""

    def __init__(
        self, identity: Identity, target: str, binding: Binding, tensors: TensorSender, sender: Sender
    ) -> None:
        self._target = target
        self._binding = binding
        self._same_pod = binding.pod == identity.pod
        self._sender = sender
        self._tensors = tensors
        self._introduced: set[RequestKey] = set()
        self._frames: FrameWriter[stage_pb2.DeliverEvent] = FrameWriter(
            lambda piece: stage_pb2.DeliverEvent(blob=piece)
        )
        self._frames.put(
            stage_pb2.DeliverEvent(
                hello=stage_pb2.DeliverHello(
                    pipeline=identity.pipeline,
                    stage=identity.stage,
                    replica=identity.replica,
                    pod=identity.pod,
                    contract_version=CONTRACT_VERSION,
                )
            )
        )

    async def run(self) -> None:
        """Carries frames until the replica is gone; then fails the requests that it was told of."""
        try:
            async with open_channel(self._binding.address) as channel:
                call = stage_pb2_grpc.StageServiceStub(channel).Deliver()
                async with client_session(call) as duplex:
                    await exchange(
                        duplex,
                        self._frames,
                        frame=lambda events: stage_pb2.DeliverRequest(events=events),
                        handle=self._answer,
                    )
        except OmniError as error:
            logger.info("a downstream replica is gone", extra={"peer": self._binding.replica, "why": error.message})
        finally:
            self._frames.close()
            lost, self._introduced = self._introduced, set()
            for key in lost:
                self._sender.fail(key, StageUnavailable(self._target, f"lost its replica {self._binding.replica}"))

    def close(self) -> None:
        self._frames.close()

    def send(self, event: stage_pb2.DeliverEvent, envelope: Envelope, now: float, blobs: Sequence[Blob] = ()) -> None:
        """Queues the event; the first one of a request takes the envelope along. Raises OmniError."""
        key = envelope.key
        event.key.CopyFrom(convert.render_key(key))
        if key not in self._introduced:
            event.envelope.CopyFrom(convert.render_envelope(envelope, now))
        self._frames.put(event, lane=key.request_id, blobs=blobs)
        self._introduced.add(key)

    def encode(self, codec: PayloadCodec, value: object, envelope: Envelope) -> Encoded:
        return self._tensors.encode(
            codec,
            value,
            envelope.key.request_id,
            same_pod=self._same_pod,
            expires=envelope.deadline,
        )

    def give_back(self, encoded: Encoded) -> None:
        """Frees the slots of a payload that could not be queued."""
        self._tensors.release(encoded.slots)

    def forget(self, key: RequestKey) -> None:
        self._introduced.discard(key)

    def abandon(self, key: RequestKey) -> None:
        self._frames.drop(key.request_id)

    def _answer(self, frame: stage_pb2.DeliverResponse) -> None:
        for reply in frame.replies:
            match reply.WhichOneof("reply"):
                case "credit":
                    self._sender.grant(convert.parse_key(reply.credit.key), self._target, reply.credit.chunks)
                case "release":
                    self._tensors.release(reply.release.slots)
                case "failure":
                    error = convert.error_of(reply.failure.failure)
                    self._sender.fail(convert.parse_key(reply.failure.key), error)


class PeerLinks:
    """The streams to all downstream replicas."""

    def __init__(
        self,
        identity: Identity,
        codec: PayloadCodec,
        arena: ArenaWriter | None,
        *,
        tasks: anyio.abc.TaskGroup,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._codec = codec
        self._arena = arena
        self._tensors = TensorSender(arena)
        self._tasks = tasks
        self._clock = clock
        self._links: dict[tuple[str, str], PeerLink] = {}
        self._sender: Callable[[], Sender] | None = None

    def answer_to(self, sender: Sender) -> None:
        """The stage and its links know each other; this closes the circle."""
        self._sender = lambda: sender

    def payload(self, envelope: Envelope, target: str, value: object, reports: Iterable[StageReport]) -> None:
        def event(payload: payload_pb2.Payload) -> stage_pb2.DeliverEvent:
            rendered = [convert.render_report(report) for report in reports]
            return stage_pb2.DeliverEvent(payload=stage_pb2.PayloadEvent(payload=payload, reports=rendered))

        self._send_value(envelope, target, value, event)

    def chunk(self, envelope: Envelope, target: str, index: int, value: object) -> None:
        def event(payload: payload_pb2.Payload) -> stage_pb2.DeliverEvent:
            return stage_pb2.DeliverEvent(chunk=stage_pb2.ChunkEvent(index=index, payload=payload))

        self._send_value(envelope, target, value, event)

    def done(self, envelope: Envelope, target: str, chunks: int, reports: Iterable[StageReport]) -> None:
        event = stage_pb2.DoneEvent(chunks=chunks, reports=[convert.render_report(report) for report in reports])
        self._link(envelope, target).send(stage_pb2.DeliverEvent(done=event), envelope, self._clock())

    def forget(self, key: RequestKey) -> None:
        for link in self._links.values():
            link.forget(key)

    def abandon(self, key: RequestKey) -> None:
        """The request was aborted: what waits for it does not leave, and its arena leases end."""
        for link in self._links.values():
            link.abandon(key)
        if self._arena is not None:
            self._arena.release_request(key.request_id)

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    def _send_value(
        self,
        envelope: Envelope,
        target: str,
        value: object,
        event: Callable[[payload_pb2.Payload], stage_pb2.DeliverEvent],
    ) -> None:
        link = self._link(envelope, target)
        encoded = link.encode(self._codec, value, envelope)
        try:
            link.send(event(encoded.payload), envelope, self._clock(), encoded.blobs)
        except OmniError:
            link.give_back(encoded)
            raise
        for transport, size in encoded.sizes:
            edge = f"{self._identity.stage}>{target}"
            names.EDGE_TRANSFERS.labels(edge, transport).inc()
            names.EDGE_BYTES.labels(edge, transport).inc(size)

    def _link(self, envelope: Envelope, target: str) -> PeerLink:
        binding = envelope.bindings[target]
        at = (target, binding.address)
        link = self._links.get(at)
        if link is None:
            assert self._sender is not None, "links are used after the stage is made"  # noqa: S101
            link = PeerLink(self._identity, target, binding, self._tensors, self._sender())
            self._links[at] = link
            self._tasks.start_soon(self._keep, at, link)
        return link

    async def _keep(self, at: tuple[str, str], link: PeerLink) -> None:
        try:
            await link.run()
        finally:
            del self._links[at]
