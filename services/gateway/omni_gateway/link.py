"""The stream to one coordinator, and the requests on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from omni.common.v1 import tensor_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.data_ref import checksum
from omni_common.deadline import Deadline
from omni_common.errors import Internal, InvalidRequest, OmniError
from omni_common.request import FinishReason, GenerationRequest, TraceContext
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert import (
    duration_of,
    error_of,
    parse_finish_reason,
    parse_output,
    parse_report,
    parse_usage,
    render_request,
    render_trace,
)
from omni_common.rpc.duplex import PeerGone
from omni_common.rpc.frames import Blob, FrameWriter, PeerStalled
from omni_gateway.call import Admitted, Call, Finished
from omni_gateway.pipelines import PipelineView, parse_pipeline

logger = logging.getLogger(__name__)


class Link:
    """Lives as long as its stream. Tickets and blobs are numbered within it."""

    def __init__(self, gateway: str, *, on_pipeline: Callable[[], None], abandon: Callable[[], None]) -> None:
        """`abandon` ends the stream at once."""
        self.pipelines: dict[str, PipelineView] = {}
        self.writer = FrameWriter[pb.GatewayEvent](lambda piece: pb.GatewayEvent(blob=piece))
        self._on_pipeline = on_pipeline
        self._abandon = abandon
        self._calls: dict[int, Call] = {}
        self._numbers = count(1)
        hello = pb.GatewayHello(gateway=gateway, contract_version=CONTRACT_VERSION)
        self.writer.put(pb.GatewayEvent(hello=hello))

    @property
    def live(self) -> int:
        return len(self._calls)

    def open(self, request: GenerationRequest, *, deadline: Deadline, trace: TraceContext, credits: int) -> Call:
        """Submits the request. Raises PeerStalled or PeerGone, and REQUEST_TOO_LARGE for a text beyond a frame."""
        ticket = next(self._numbers)
        lane = str(ticket)
        blobs: list[Blob] = []

        def put_blob(data: bytes | memoryview) -> tensor_pb2.DataRef:
            blob = Blob(next(self._numbers), lane, memoryview(data))
            blobs.append(blob)
            return tensor_pb2.DataRef(
                data_type=tensor_pb2.DATA_TYPE_UINT8,
                shape=[len(data)],
                length=len(data),
                checksum=checksum(data),
                blob=blob.id,
            )

        submit = pb.Submit(
            request=render_request(request, put_blob),
            remaining=duration_of(deadline.remaining),
            trace=render_trace(trace),
            output_credits=credits,
        )
        self.writer.put(pb.GatewayEvent(ticket=ticket, submit=submit), lane=lane, blobs=blobs)
        call = Call(ticket, deadline=deadline, credits=credits, give_credit=lambda t, a: self._credit(ticket, t, a))
        self._calls[ticket] = call
        return call

    def close(self, call: Call) -> None:
        """The reader is done with it; a request that is not over is cancelled."""
        self._calls.pop(call.ticket, None)
        if call.over and not call.cut:
            return
        call.leave()
        self.writer.drop(str(call.ticket))
        self._put(pb.GatewayEvent(ticket=call.ticket, cancel=pb.Cancel()))

    def fail_all(self, error: OmniError) -> None:
        for call in list(self._calls.values()):
            call.cut_off(error)

    def handle(self, frame: pb.ConnectResponse) -> None:
        for notice in frame.notices:
            if notice.WhichOneof("notice") == "pipeline":
                self.pipelines[notice.pipeline.name] = parse_pipeline(notice.pipeline)
                self._on_pipeline()
            elif (call := self._calls.get(notice.ticket)) is not None:
                self._notify(call, notice)

    def _notify(self, call: Call, notice: pb.GatewayNotice) -> None:
        try:
            match notice.WhichOneof("notice"):
                case "admitted":
                    call.arrive(Admitted(notice.admitted.request_id))
                case "output":
                    call.arrive(parse_output(notice.output)[1])
                case "finished":
                    call.arrive(_finished(notice.finished))
                case "failed":
                    call.fail(error_of(notice.failed))
        except InvalidRequest as error:
            logger.error("coordinator sent nonsense", extra={"why": error.message})  # noqa: TRY400  # no traceback needed
            call.cut_off(Internal())

    def _credit(self, ticket: int, text: int, audio: int) -> None:
        self._put(pb.GatewayEvent(ticket=ticket, credit=pb.OutputCredit(text=text, audio=audio)))

    def _put(self, event: pb.GatewayEvent) -> None:
        # A stream that is gone has ended its requests at the other side already.
        with suppress(PeerGone):
            try:
                self.writer.put(event, lane=str(event.ticket))
            except PeerStalled:
                # It has not read for thousands of events. Ending the stream is what makes it drop the requests.
                self._abandon()


def _finished(message: pb.Finished) -> Finished:
    return Finished(
        parse_finish_reason(message.finish_reason) or FinishReason.STOP,
        parse_usage(message.usage),
        tuple(map(parse_report, message.reports)),
    )
