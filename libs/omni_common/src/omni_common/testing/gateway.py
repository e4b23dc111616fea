"""A gateway for tests: speaks Connect with a real coordinator over gRPC.

Strict: a notice that nobody asked for, under a ticket that is over or was never used, fails the test.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import xxhash

from omni.common.v1 import tensor_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from omni_common.errors import OmniError
from omni_common.request import GenerationRequest, Output, TerminalResult, TraceContext
from omni_common.rpc.channel import open_channel
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
from omni_common.rpc.frames import Blob, FrameWriter
from omni_common.rpc.session import client_session, exchange
from omni_common.testing.mail import PATIENCE, Mail


@dataclass(frozen=True, slots=True)
class Admitted:
    request_id: str


@dataclass(frozen=True, slots=True)
class Piece:
    index: int
    output: Output


Notice = Admitted | Piece | TerminalResult | OmniError


class Ticket:
    """One request of the fake gateway."""

    def __init__(self, number: int, say: Callable[[pb.GatewayEvent], None]) -> None:
        self.number = number
        self.notices: Mail[Notice] = Mail()
        self.over = False
        self._say = say

    async def admitted(self) -> str:
        """The request's id. Raises AssertionError when something else comes first, the refusal's sentence included."""
        notice = await self.notices.next()
        assert isinstance(notice, Admitted), repr(notice)  # noqa: S101
        return notice.request_id

    async def piece(self) -> Piece:
        notice = await self.notices.next()
        assert isinstance(notice, Piece), repr(notice)  # noqa: S101
        return notice

    async def finished(self) -> TerminalResult:
        notice = await self.notices.next()
        assert isinstance(notice, TerminalResult), repr(notice)  # noqa: S101
        return notice

    async def failed(self) -> OmniError:
        notice = await self.notices.next()
        assert isinstance(notice, OmniError), repr(notice)  # noqa: S101
        return notice

    def cancel(self) -> None:
        self._say(pb.GatewayEvent(ticket=self.number, cancel=pb.Cancel()))

    def read(self, *, text: int = 0, audio: int = 0) -> None:
        """Returns credits."""
        self._say(pb.GatewayEvent(ticket=self.number, credit=pb.OutputCredit(text=text, audio=audio)))


class FakeGateway:
    """One gateway; made by `fake_gateway`."""

    def __init__(self) -> None:
        self.pipelines: dict[str, pb.PipelineStatus] = {}
        self.gone = anyio.Event()
        self._news = anyio.Event()
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)
        self._blob_numbers = itertools.count(1)
        self._writer = FrameWriter[pb.GatewayEvent](lambda chunk: pb.GatewayEvent(blob=chunk))
        self.raw(pb.GatewayEvent(hello=pb.GatewayHello(gateway="fake", contract_version=CONTRACT_VERSION)))

    def submit(
        self,
        request: GenerationRequest,
        *,
        remaining: float | None = PATIENCE,
        output_credits: int = 16,
        trace: TraceContext = TraceContext(),  # noqa: B008  # frozen
    ) -> Ticket:
        number = next(self._numbers)
        ticket = self._tickets[number] = Ticket(number, self.raw)
        blobs: list[Blob] = []

        def put_blob(data: bytes | memoryview) -> tensor_pb2.DataRef:
            blobs.append(Blob(next(self._blob_numbers), str(number), memoryview(data)))
            return tensor_pb2.DataRef(
                data_type=tensor_pb2.DATA_TYPE_UINT8,
                shape=[len(data)],
                length=len(data),
                checksum=xxhash.xxh3_64_intdigest(data),
                blob=blobs[-1].id,
            )

        submit = pb.Submit(
            request=render_request(request, put_blob),
            remaining=None if remaining is None else duration_of(remaining),
            trace=render_trace(trace),
            output_credits=output_credits,
        )
        self._writer.put(pb.GatewayEvent(ticket=number, submit=submit), lane=str(number), blobs=blobs)
        return ticket

    def raw(self, event: pb.GatewayEvent) -> None:
        self._writer.put(event, lane=str(event.ticket))

    def end(self) -> None:
        """Ends the stream in good order."""
        self._writer.close()

    async def until(self, pipeline: str, holds: Callable[[pb.PipelineStatus], bool]) -> pb.PipelineStatus:
        """The pipeline's first state from now on for which it holds. Raises TimeoutError when none comes."""
        with anyio.fail_after(PATIENCE):
            while pipeline not in self.pipelines or not holds(self.pipelines[pipeline]):
                await self._news.wait()
        return self.pipelines[pipeline]

    async def until_ready(self, pipeline: str) -> None:
        await self.until(pipeline, lambda status: status.ready)

    async def run(self, address: str) -> None:
        """Until `end`, or until the coordinator ends it."""
        async with open_channel(address) as channel:
            stub = CoordinatorServiceStub(channel)
            async with client_session(stub.Connect()) as duplex:
                try:
                    await exchange(
                        duplex,
                        self._writer,
                        frame=lambda evts: pb.ConnectRequest(events=evts),
                        handle=self._handle,
                    )
                finally:
                    self.gone.set()

    def _handle(self, frame: pb.ConnectResponse) -> None:
        for notice in frame.notices:
            if notice.HasField("pipeline"):
                self.pipelines[notice.pipeline.name] = notice.pipeline
                self._news.set()
                self._news = anyio.Event()
            else:
                self._deliver(notice)

    def _deliver(self, notice: pb.GatewayNotice) -> None:
        ticket = self._tickets.get(notice.ticket)
        if ticket is None or ticket.over:
            raise AssertionError(f"ticket {notice.ticket} is not alive and got {notice.WhichOneof('notice')}")
        parsed = _parse(notice)
        ticket.over = isinstance(parsed, TerminalResult | OmniError)
        ticket.notices.put(parsed)

    def close(self) -> None:
        for ticket in self._tickets.values():
            ticket.notices.close()


def _parse(notice: pb.GatewayNotice) -> Notice:
    match notice.WhichOneof("notice"):
        case "admitted":
            return Admitted(notice.admitted.request_id)
        case "output":
            return Piece(*parse_output(notice.output))
        case "finished":
            return TerminalResult(
                parse_finish_reason(notice.finished.finish_reason),
                parse_usage(notice.finished.usage),
                tuple(map(parse_report, notice.finished.reports)),
            )
        case "failed":
            return error_of(notice.failed)
        case other:
            raise AssertionError(f"the coordinator sent {other}, which a gateway does not know")


@asynccontextmanager
async def fake_gateway(address: str) -> AsyncIterator[FakeGateway]:
    """A gateway connected to the coordinator at `address`; the stream ends in good order with the block."""
    gateway = FakeGateway()
    async with anyio.create_task_group() as tasks:

        async def session() -> None:
            with suppress(PeerGone):  # the coordinator may end before the gateway
                await gateway.run(address)

        tasks.start_soon(session)
        try:
            yield gateway
        finally:
            gateway.end()
            with anyio.move_on_after(PATIENCE, shield=True):
                await gateway.gone.wait()
            tasks.cancel_scope.cancel()
            gateway.close()
