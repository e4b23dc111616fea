"""A gateway's session: its Connect stream, with many requests under tickets of the gateway's choice."""

from __future__ import annotations

import logging

import anyio

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import InvalidRequest, OmniError, Unsupported
from omni_common.request import Output
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert import failure_of, parse_request, parse_trace, render_output, seconds_of
from omni_common.rpc.duplex import Duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.session import exchange
from omni_coordinator.coordinator import Coordinator
from omni_coordinator.core.events import CallerGone, Finished, OutputRead
from omni_coordinator.finished import render_finished
from omni_coordinator.live import LiveRequest
from omni_coordinator.media_inbox import MediaInbox
from omni_coordinator.pipeline_status import render_pipeline
from omni_coordinator.submission import Submission

logger = logging.getLogger(__name__)


class GatewaySession:
    """One gateway's requests, and the state of the pipelines for its readiness."""

    def __init__(self, coordinator: Coordinator, gateway: str) -> None:
        self._coordinator = coordinator
        self._gateway = gateway
        self._scope = anyio.CancelScope()
        self._lost: OmniError | None = None
        self._writer = FrameWriter[pb.GatewayNotice]()
        self._inbox = MediaInbox(coordinator.media)
        self._requests: dict[int, LiveRequest] = {}
        self._stale: set[str] = set()

    async def run(self, duplex: Duplex[pb.ConnectRequest, pb.ConnectResponse], first: pb.ConnectRequest) -> None:
        """Until the stream ends; what is alive on it then has lost its caller."""
        logger.info("gateway connected", extra={"gateway": self._gateway})
        self._coordinator.watch(self)
        try:
            with self._scope:
                for pipeline in self._coordinator.pipelines:
                    self.pipeline_changed(pipeline)
                for event in first.events[1:]:
                    self._hear(event)
                await exchange(_Ending(duplex, self._scope), self._writer, frame=self._frame, handle=self._handle)
        finally:
            self._coordinator.unwatch(self)
            for live in tuple(self._requests.values()):
                live.feed(CallerGone())
            self._inbox.close()
            logger.info("gateway gone", extra={"gateway": self._gateway})
        if self._lost is not None:
            raise self._lost

    def enter(self, ticket: int, live: LiveRequest) -> None:
        self._requests[ticket] = live
        self.notify(pb.GatewayNotice(ticket=ticket, admitted=pb.Admitted(request_id=live.key.request_id)))

    def leave(self, notice: pb.GatewayNotice) -> None:
        self._requests.pop(notice.ticket, None)
        self.notify(notice)

    def notify(self, notice: pb.GatewayNotice) -> None:
        """Never waits. A gateway that takes nothing loses its session."""
        try:
            self._writer.put(notice, lane=str(notice.ticket))
        except OmniError as lost:
            self._lost = self._lost or lost
            self._scope.cancel()

    def finish(self) -> None:
        """Ends the session once what waits is sent."""
        self._coordinator.unwatch(self)
        self._writer.close()

    # Pipelines: at most one notice of each waits, and it is filled in when it leaves.

    def pipeline_changed(self, pipeline: str) -> None:
        if pipeline not in self._stale:
            self._stale.add(pipeline)
            self.notify(pb.GatewayNotice(pipeline=pb.PipelineStatus(name=pipeline)))

    def _frame(self, notices: list[pb.GatewayNotice]) -> pb.ConnectResponse:
        for notice in notices:
            if notice.HasField("pipeline"):
                name = notice.pipeline.name
                self._stale.discard(name)
                state = self._coordinator.state(name)
                notice.pipeline.CopyFrom(render_pipeline(state, taking=self._coordinator.open))
        return pb.ConnectResponse(notices=notices)

    # What the gateway says

    def _handle(self, frame: pb.ConnectRequest) -> None:
        for event in frame.events:
            self._hear(event)

    def _hear(self, event: pb.GatewayEvent) -> None:
        match event.WhichOneof("event"):
            case "hello":
                raise InvalidRequest("A gateway says hello once.")
            case "blob":
                self._inbox.add(event.blob)
            case "submit":
                self._submit(event.ticket, event.submit)
            case "cancel":
                self._cancel(event.ticket)
            case "credit" if event.ticket in self._requests:
                self._requests[event.ticket].feed(OutputRead(event.credit.text, event.credit.audio))
            case _:
                return  # credit that came late, or a newer gateway's event that this version does not know

    def _submit(self, ticket: int, submit: pb.Submit) -> None:
        if not ticket or ticket in self._requests:
            raise InvalidRequest("Each request needs a ticket of its own.")
        try:
            try:
                submission = self._parse(submit)
            finally:
                self._inbox.drop(str(ticket))
            self._coordinator.submit(submission, _TicketCaller(self, ticket))
        except OmniError as refusal:
            self.notify(pb.GatewayNotice(ticket=ticket, failed=failure_of(refusal)))

    def _parse(self, submit: pb.Submit) -> Submission:
        return Submission(
            parse_request(submit.request, self._inbox.take),
            submit.output_credits,
            remaining=seconds_of(submit.remaining) if submit.HasField("remaining") else None,
            trace=parse_trace(submit.trace),
        )

    def _cancel(self, ticket: int) -> None:
        self._inbox.drop(str(ticket))
        live = self._requests.get(ticket)
        if live is not None:
            self._writer.drop(str(ticket))  # nobody reads it any more
            live.feed(CallerGone())


class _TicketCaller:
    """The caller of one request on a gateway's stream."""

    def __init__(self, session: GatewaySession, ticket: int) -> None:
        self._session = session
        self._ticket = ticket

    def admitted(self, live: LiveRequest) -> None:
        self._session.enter(self._ticket, live)

    def output(self, index: int, output: Output) -> None:
        self._session.notify(pb.GatewayNotice(ticket=self._ticket, output=render_output(output, index)))

    def finished(self, finished: Finished) -> None:
        self._session.leave(pb.GatewayNotice(ticket=self._ticket, finished=render_finished(finished)))

    def failed(self, error: OmniError) -> None:
        self._session.leave(pb.GatewayNotice(ticket=self._ticket, failed=failure_of(error)))


class _Ending:
    """A server's stream that ends once everything is written: its direction ends only with its handler, which would go
    on reading otherwise."""

    def __init__(self, duplex: Duplex[pb.ConnectRequest, pb.ConnectResponse], scope: anyio.CancelScope) -> None:
        self._duplex = duplex
        self._scope = scope

    async def read(self) -> pb.ConnectRequest | None:
        return await self._duplex.read()

    async def write(self, frame: pb.ConnectResponse) -> None:
        await self._duplex.write(frame)

    async def end(self) -> None:
        self._scope.cancel()


async def serve_gateway(
    coordinator: Coordinator, duplex: Duplex[pb.ConnectRequest, pb.ConnectResponse], hello_timeout: float
) -> None:
    """One Connect stream. Raises OmniError when its hello does not fit this coordinator."""
    first: pb.ConnectRequest | None = None
    with anyio.move_on_after(hello_timeout):
        first = await duplex.read()
    if first is None or not first.events or not first.events[0].HasField("hello"):
        raise InvalidRequest("A gateway's first event is hello.")
    hello = first.events[0].hello
    if hello.contract_version != CONTRACT_VERSION:
        raise Unsupported(
            f"The gateway speaks contract version {hello.contract_version}, this coordinator {CONTRACT_VERSION}."
        )
    await GatewaySession(coordinator, hello.gateway).run(duplex, first)
