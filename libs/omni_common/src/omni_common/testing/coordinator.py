"""A coordinator for tests of its gateways: real gRPC, scripted answers, strict about the contract.

A script answers one submit. A script that is never asked for, a submit that nobody scripted, a blob that does not
arrive whole or an output credit that was never lent fails the test when the coordinator is left.

async with fake_coordinator(pipeline_status("echo")) as coordinator:
    answer = coordinator.script(Admit(), TextOutput("hi"), Finish())
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.abc
import grpc
import grpc.aio

from omni.common.v1 import request_pb2, tensor_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import (
    CoordinatorServiceServicer,
    add_CoordinatorServiceServicer_to_server,
)
from omni_common.data_ref import checksum
from omni_common.errors import Cancelled, InvalidRequest, OmniError, Unsupported
from omni_common.request import AudioOutput, Segment, TextOutput
from omni_common.rpc.contract import CONTRACT_VERSION
from omni_common.rpc.convert import (
    failure_of,
    parse_request,
    render_finish_reason,
    render_output,
    render_report,
    render_usage,
)
from omni_common.rpc.duplex import Duplex, PeerGone, server_duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.server import open_server
from omni_common.rpc.session import exchange
from omni_common.testing.scripts import Admit, Finish, Scripted, Step


class FakeCoordinator:
    """Serves `Connect` as the contract says and nothing else."""

    def __init__(self, pipelines: tuple[pb.PipelineStatus, ...]) -> None:
        self.address = ""
        self.faults: list[str] = []
        self.sessions: list[_Session] = []
        self.pipelines = {status.name: status for status in pipelines}
        self._waiting: list[Scripted] = []

    def script(self, *steps: Step) -> Scripted:
        """The answer to the next submit that has none yet."""
        scripted = Scripted(steps)
        self._waiting.append(scripted)
        return scripted

    def announce(self, status: pb.PipelineStatus) -> None:
        """Tells every gateway that a pipeline has changed."""
        self.pipelines[status.name] = status
        for session in self.sessions:
            session.writer.put(pb.GatewayNotice(pipeline=status))

    def hang_up(self) -> None:
        """Ends every stream, as a coordinator does that stops."""
        for session in list(self.sessions):
            session.scope.cancel()

    def next_script(self) -> Scripted | None:
        if self._waiting:
            return self._waiting.pop(0)
        self.faults.append("a request was submitted that nobody scripted")
        return None

    def check(self) -> None:
        """Raises AssertionError for what went against the script or the contract."""
        unused = [f"a script of {len(s.steps)} steps was never asked for" for s in self._waiting]
        if faults := self.faults + unused:
            raise AssertionError("; ".join(faults))


class _Session:
    def __init__(self, fake: FakeCoordinator, tasks: anyio.abc.TaskGroup) -> None:
        self.writer = FrameWriter[pb.GatewayNotice]()
        self.scope = tasks.cancel_scope
        self._fake = fake
        self._tasks = tasks
        self._live: dict[int, _Live] = {}
        self._seen: set[int] = set()
        self._blobs: dict[int, bytearray] = {}
        self._lengths: dict[int, int] = {}

    def handle(self, frame: pb.ConnectRequest) -> None:
        for event in frame.events:
            with self._noted():
                self._hear(event)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except (AssertionError, OmniError) as fault:
            self._fake.faults.append(str(fault))

    def _hear(self, event: pb.GatewayEvent) -> None:
        match event.WhichOneof("event"):
            case "blob":
                self._add(event.blob)
            case "submit":
                _require(event.ticket not in self._seen and event.ticket > 0, "a ticket was used twice")
                self._seen.add(event.ticket)
                self._submit(event.ticket, event.submit)
            case "cancel":
                _require(event.ticket in self._seen, "a cancel names a ticket that was never submitted")
                if event.ticket in self._live:
                    self._live[event.ticket].cancel()
            case "credit":
                _require(event.ticket in self._seen, "a credit names a ticket that was never submitted")
                if event.ticket in self._live:
                    self._live[event.ticket].lend(event.credit)
            case other:
                _require(False, f"a gateway sent {other} in the middle of a stream")

    def _add(self, chunk: tensor_pb2.BlobChunk) -> None:
        _require(len(chunk.data) <= 1 << 20, "a piece of a blob has more than 1 MiB")
        if chunk.blob not in self._blobs:
            _require(chunk.total_length > 0, "the first piece of a blob does not tell its length")
            self._lengths[chunk.blob] = chunk.total_length
        self._blobs.setdefault(chunk.blob, bytearray()).extend(chunk.data)

    def _take(self, ref: tensor_pb2.DataRef) -> bytes:
        data = bytes(self._blobs.pop(ref.blob, b""))
        _require(len(data) == ref.length == self._lengths.pop(ref.blob, -1), "a blob did not arrive whole")
        _require(checksum(data) == ref.checksum, "a blob's checksum is wrong")
        return data

    def _submit(self, ticket: int, submit: pb.Submit) -> None:
        scripted = self._fake.next_script()
        if scripted is None:
            refusal = failure_of(Unsupported("Nobody scripted this request."))
            self.writer.put(pb.GatewayNotice(ticket=ticket, failed=refusal), lane=str(ticket))
            return
        _require(submit.output_credits > 0, "a submit lends no credit")
        _require(submit.remaining.ToTimedelta().total_seconds() > 0, "a submit has no time left")
        scripted.submit = submit
        scripted.request = parse_request(submit.request, self._take)
        scripted.submitted.set()
        self._live[ticket] = _Live(ticket, scripted, self.writer)
        self._tasks.start_soon(self._play, ticket)

    async def _play(self, ticket: int) -> None:
        live = self._live[ticket]
        try:
            await live.play()
        finally:
            del self._live[ticket]
            live.scripted.ended.set()


class _Live:
    def __init__(self, ticket: int, scripted: Scripted, writer: FrameWriter[pb.GatewayNotice]) -> None:
        self.scripted = scripted
        self._ticket = ticket
        self._writer = writer
        self._scope = anyio.CancelScope()
        lent = scripted.submit.output_credits
        self._lent = lent
        self._credit = {"text": lent, "audio": lent}
        self._news = anyio.Event()

    def lend(self, credit: pb.OutputCredit) -> None:
        self._credit["text"] += credit.text
        self._credit["audio"] += credit.audio
        _require(max(self._credit.values()) <= self._lent, "a credit was lent for an output that was never sent")
        self._news.set()

    def cancel(self) -> None:
        self.scripted.cancelled.set()
        self._scope.cancel()

    async def play(self) -> None:
        with self._scope:
            for index, step in enumerate(self.scripted.steps):
                await self._do(step, index)
        if self.scripted.cancelled.is_set():
            self._say(pb.GatewayNotice(failed=failure_of(Cancelled())))

    async def _do(self, step: Step, index: int) -> None:
        match step:
            case anyio.Event():
                await step.wait()
            case Admit(request_id):
                self._say(pb.GatewayNotice(admitted=pb.Admitted(request_id=request_id)))
            case TextOutput() | AudioOutput() | Segment():
                await self._output(render_output(step, index))
            case Finish():
                self._say(pb.GatewayNotice(finished=_finished(step)))
            case OmniError():
                self._say(pb.GatewayNotice(failed=failure_of(step)))

    async def _output(self, output: request_pb2.Output) -> None:
        kind = "audio" if output.WhichOneof("piece") == "audio" else "text"
        while not self._credit[kind]:
            self._news = anyio.Event()
            await self._news.wait()
        self._credit[kind] -= 1
        self.scripted.sent += 1
        self._say(pb.GatewayNotice(output=output))

    def _say(self, notice: pb.GatewayNotice) -> None:
        notice.ticket = self._ticket
        self._writer.put(notice, lane=str(self._ticket))


class _Service(CoordinatorServiceServicer):
    def __init__(self, fake: FakeCoordinator) -> None:
        self._fake = fake

    async def Connect(  # type: ignore[override]  # a coroutine that writes; the stub knows generators only
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await _serve(self._fake, server_duplex(context))

    async def Attach(  # type: ignore[override]
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)

    async def Generate(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # type: ignore[override]
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)


async def _serve(fake: FakeCoordinator, duplex: Duplex[pb.ConnectRequest, pb.ConnectResponse]) -> None:
    first = await duplex.read()
    if first is None or not first.events or first.events[0].WhichOneof("event") != "hello":
        fake.faults.append("a stream did not begin with hello")
        raise InvalidRequest("A stream begins with hello.")
    if first.events[0].hello.contract_version != CONTRACT_VERSION:
        fake.faults.append("a gateway speaks another version of the contract")
    async with anyio.create_task_group() as tasks:
        session = _Session(fake, tasks)
        fake.sessions.append(session)
        try:
            for status in fake.pipelines.values():
                session.writer.put(pb.GatewayNotice(pipeline=status))
            session.handle(pb.ConnectRequest(events=first.events[1:]))
            await exchange(duplex, session.writer, frame=_frame, handle=session.handle)
        except PeerGone:
            pass  # a gateway may leave as it likes
        finally:
            fake.sessions.remove(session)
            tasks.cancel_scope.cancel()


def _frame(notices: list[pb.GatewayNotice]) -> pb.ConnectResponse:
    return pb.ConnectResponse(notices=notices)


@asynccontextmanager
async def fake_coordinator(*pipelines: pb.PipelineStatus) -> AsyncIterator[FakeCoordinator]:
    """A coordinator on a free port of loopback; left, it checks that everything went by its scripts."""
    fake = FakeCoordinator(pipelines)
    server = await open_server("127.0.0.1:0", services=["omni.coordinator.v1.CoordinatorService"])
    add_CoordinatorServiceServicer_to_server(_Service(fake), server.grpc)
    await server.start()
    fake.address = f"127.0.0.1:{server.port}"
    try:
        yield fake
    finally:
        await server.stop(0)
    fake.check()


def _finished(step: Finish) -> pb.Finished:
    return pb.Finished(
        finish_reason=render_finish_reason(step.finish_reason),
        usage=render_usage(step.usage),
        reports=map(render_report, step.reports),
    )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
