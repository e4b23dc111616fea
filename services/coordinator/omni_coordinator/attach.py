"""A stage replica's session: its Attach stream, from hello to the loss of it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import anyio
import xxhash

from omni.common.v1 import tensor_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import Internal, InvalidRequest, OmniError, Unsupported
from omni_common.request import Envelope, GenerationRequest, RequestKey
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert import (
    error_of,
    parse_key,
    parse_output,
    parse_result,
    render_envelope,
    render_key,
    render_request,
)
from omni_common.rpc.duplex import Duplex, PeerGone
from omni_common.rpc.frames import Blob, FrameWriter, PeerStalled
from omni_common.rpc.session import exchange
from omni_coordinator.coordinator import Coordinator
from omni_coordinator.core.bindings import Replica
from omni_coordinator.core.events import AbortAcked, Event, OutputMade, StageFailed, TerminalDone
from omni_coordinator.pipeline_status import parse_phase

logger = logging.getLogger(__name__)

COMMANDS_ROOM = 64 << 20
"""Bytes of commands that may wait for one replica beside all media that the coordinator may hold."""


class StageSession:
    """The way to one replica (a StageLink), and its voice."""

    def __init__(self, coordinator: Coordinator, replica: Replica) -> None:
        self.replica = replica
        self._coordinator = coordinator
        self._scope = anyio.CancelScope()
        self._lost: OmniError | None = None
        self._blob_numbers = itertools.count(1)
        self._writer = FrameWriter[pb.StageCommand](
            lambda chunk: pb.StageCommand(blob=chunk), max_bytes=coordinator.media.limit + COMMANDS_ROOM
        )

    async def run(self, duplex: Duplex[pb.AttachRequest, pb.AttachResponse], first: pb.AttachRequest) -> None:
        """Until the stream ends. `first` is the frame whose first event was hello."""
        self._coordinator.attach(self)
        logger.info("replica attached", extra=self._facts())
        try:
            with self._scope:
                self._put(pb.StageCommand(welcome=pb.Welcome(coordinator=self._coordinator.id)))
                for event in first.events[1:]:
                    self._hear(event)
                await exchange(duplex, self._writer, frame=_frame, handle=self._handle)
        finally:
            self._coordinator.detach(self)
            logger.info("replica detached", extra=self._facts())
        if self._lost is not None:
            raise self._lost

    # StageLink

    def dispatch(self, envelope: Envelope, request: GenerationRequest, media_sent: Callable[[], None]) -> None:
        lane = envelope.key.lane
        media: list[tuple[int, memoryview]] = []

        def put_blob(data: bytes | memoryview) -> tensor_pb2.DataRef:
            number = next(self._blob_numbers)
            media.append((number, memoryview(data)))
            return tensor_pb2.DataRef(
                data_type=tensor_pb2.DATA_TYPE_UINT8,
                shape=[len(data)],
                length=len(data),
                checksum=xxhash.xxh3_64_intdigest(data),
                blob=number,
            )

        message = render_request(request, put_blob)
        message.ClearField("params")  # they are in the envelope
        blobs = [Blob(number, lane, data) for number, data in media]
        if blobs:  # they leave in this order, so the last one's end is the end of all
            blobs[-1] = Blob(blobs[-1].id, lane, blobs[-1].data, on_sent=media_sent)
        dispatch = pb.Dispatch(envelope=render_envelope(envelope, self._coordinator.now()), request=message)
        try:
            queued = self._put(pb.StageCommand(dispatch=dispatch), lane=lane, blobs=blobs)
        except OmniError:
            media_sent()
            raise
        if not (queued and blobs):
            media_sent()

    def grant(self, key: RequestKey, text: int, audio: int) -> None:
        credit = pb.OutputCredit(key=render_key(key), text=text, audio=audio)
        self._put(pb.StageCommand(credit=credit), lane=key.lane)

    def abort(self, key: RequestKey) -> None:
        self._writer.drop(key.lane)  # what has not left need not arrive
        self._put(pb.StageCommand(abort=pb.Abort(key=render_key(key))), lane=key.lane)

    def dismiss(self) -> None:
        self._put(pb.StageCommand(dismissed=pb.Dismissed()))

    def close(self) -> None:
        self._scope.cancel()

    def _put(self, command: pb.StageCommand, *, lane: str = "", blobs: list[Blob] | None = None) -> bool:
        """False when the replica takes nothing any more: its session ends, which fails its requests."""
        try:
            self._writer.put(command, lane=lane, blobs=blobs or ())
        except (PeerStalled, PeerGone) as lost:
            self._lost = lost
            self._scope.cancel()
            return False
        return True

    # What the replica says

    def _handle(self, frame: pb.AttachRequest) -> None:
        for event in frame.events:
            self._hear(event)

    def _hear(self, event: pb.StageEvent) -> None:
        match event.WhichOneof("event"):
            case "hello":
                raise InvalidRequest("A replica says hello once.")
            case "phase":
                self.replica.phase = parse_phase(event.phase.phase)
                self.replica.tensors_loaded = event.phase.tensors_loaded
                self.replica.tensors_total = event.phase.tensors_total
                self._coordinator.changed(self.replica)
            case "load":
                self.replica.reported = event.load.running + event.load.waiting
            case None:
                return  # a newer replica's event that this version does not know
            case _:
                self._coordinator.tell(parse_key(event.key), self._about_request(event))

    def _about_request(self, event: pb.StageEvent) -> Event:
        number = self.replica.number
        try:
            match event.WhichOneof("event"):
                case "output":
                    return OutputMade(number, *parse_output(event.output))
                case "completed":
                    return TerminalDone(number, parse_result(event.completed))
                case "failed":
                    return StageFailed(number, error_of(event.failed))
                case _:
                    return AbortAcked(number)
        except InvalidRequest as error:
            logger.warning("malformed event", extra={**self._facts(), "why": error.message})
            return StageFailed(number, Internal(f"Stage '{self.replica.stage}' sent what cannot be read."))

    def _facts(self) -> dict[str, str]:
        return {"model": self.replica.pipeline, "stage": self.replica.stage, "replica": self.replica.name}


async def serve_stage(
    coordinator: Coordinator, duplex: Duplex[pb.AttachRequest, pb.AttachResponse], hello_timeout: float
) -> None:
    """One Attach stream. Raises OmniError when its hello does not fit this coordinator."""
    first: pb.AttachRequest | None = None
    with anyio.move_on_after(hello_timeout):
        first = await duplex.read()
    if first is None or not first.events or not first.events[0].HasField("hello"):
        raise InvalidRequest("A replica's first event is hello.")
    await StageSession(coordinator, _introduce(coordinator, first.events[0].hello)).run(duplex, first)


def _introduce(coordinator: Coordinator, hello: pb.StageHello) -> Replica:
    if hello.contract_version != CONTRACT_VERSION:
        raise Unsupported(
            f"The replica speaks contract version {hello.contract_version}, this coordinator {CONTRACT_VERSION}."
        )
    pipeline = coordinator.pipelines.get(hello.pipeline)
    if pipeline is None or hello.stage not in pipeline.by_name:
        raise InvalidRequest("This coordinator serves no pipeline with that stage.")
    if not (hello.replica and hello.address and hello.capacity):
        raise InvalidRequest("A replica's hello needs its name, address and capacity.")
    return Replica(
        number=coordinator.next_number(),
        pipeline=hello.pipeline,
        stage=hello.stage,
        name=hello.replica,
        address=hello.address,
        pod=hello.pod,
        capacity=hello.capacity,
        relay=hello.relay,
    )


def _frame(commands: list[pb.StageCommand]) -> pb.AttachResponse:
    return pb.AttachResponse(commands=commands)
