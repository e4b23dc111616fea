"""The stages without a coordinator: they attach to this instead, which sends what it is told and notes the answer.

What a request takes here is what the stages take, plus the one hop that anybody needs who calls them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio
import grpc
from tests.load.ways import DEADLINE, Heard

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1 import coordinator_pb2_grpc as rpc
from omni_common.clock import monotonic
from omni_common.pipeline import PipelineConfig
from omni_common.request import Binding, Envelope, GenerationRequest, RequestKey
from omni_common.rpc import convert
from omni_common.rpc.duplex import server_duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.server import open_server
from omni_common.rpc.session import exchange

NAME = "stand-in"
SERVICE = "omni.coordinator.v1.CoordinatorService"


@dataclass(slots=True)
class _Call:
    heard: Heard
    unfinished: int  # terminal stages
    over: anyio.Event = field(default_factory=anyio.Event)


class StandIn(rpc.CoordinatorServiceServicer):
    """Knows one replica of every stage; admits everything."""

    def __init__(self, pipeline: PipelineConfig) -> None:
        self._pipeline = pipeline
        self._bindings: dict[str, Binding] = {}
        self._entry: FrameWriter[pb.StageCommand] | None = None
        self._ready: set[str] = set()
        self._calls: dict[str, _Call] = {}
        self._numbers = count(1)
        self.complete = anyio.Event()

    async def ask(self, request: GenerationRequest) -> Heard:
        assert self._entry is not None, "every stage has attached"
        key = RequestKey(f"{NAME}-{next(self._numbers)}")
        call = self._calls[key.request_id] = _Call(Heard(), len(self._pipeline.terminals(request.params.modalities)))
        envelope = convert.render_envelope(self._envelope(key, request), monotonic())
        message = convert.render_request(request, None)
        message.ClearField("params")
        self._entry.put(pb.StageCommand(dispatch=pb.Dispatch(envelope=envelope, request=message)))
        await call.over.wait()  # the driver holds the deadline of the whole measurement
        del self._calls[key.request_id]
        return call.heard

    async def Connect(self, _: Any, context: Any) -> None:  # type: ignore[override]
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)

    async def Generate(self, _: Any, context: Any) -> None:  # type: ignore[override]
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)

    async def Attach(self, _: Any, context: Any) -> None:  # type: ignore[override]  # grpc.aio's reader-writer style
        duplex = server_duplex(context)
        first = await duplex.read()
        if first is None:
            return
        hello = first.events[0].hello
        out: FrameWriter[pb.StageCommand] = FrameWriter()
        out.put(pb.StageCommand(welcome=pb.Welcome(coordinator=NAME)))
        self._bindings[hello.stage] = Binding(hello.replica, hello.address, hello.pod)
        if hello.stage == self._pipeline.entry:
            self._entry = out

        def handle(frame: pb.AttachRequest) -> None:
            for event in frame.events:
                self._hear(event, hello.stage)

        handle(first)
        await exchange(duplex, out, frame=lambda commands: pb.AttachResponse(commands=commands), handle=handle)

    def _envelope(self, key: RequestKey, request: GenerationRequest) -> Envelope:
        now = monotonic()
        return Envelope(
            key=key,
            pipeline=self._pipeline.name,
            coordinator=NAME,
            deadline=now + DEADLINE,
            origin=now,
            bindings={stage: self._bindings[stage] for stage in self._pipeline.visited(request.params.modalities)},
            terminals=self._pipeline.terminals(request.params.modalities),
            params=request.params,
            output_credits=1 << 20,
        )

    def _hear(self, event: pb.StageEvent, stage: str) -> None:
        match event.WhichOneof("event"):
            case "phase" if event.phase.phase == pb.StagePhase.STAGE_PHASE_READY:
                self._ready.add(stage)
                if self._ready == self._pipeline.by_name.keys():
                    self.complete.set()
            case "output":
                self._calls[event.key.request_id].heard.output(convert.parse_output(event.output)[1])
            case "completed":
                self._completed(self._calls[event.key.request_id])
            case "failed":
                raise convert.error_of(event.failed)

    def _completed(self, call: _Call) -> None:
        call.unfinished -= 1
        if not call.unfinished:
            call.heard.end()
            call.over.set()


@asynccontextmanager
async def stand_in(pipeline: PipelineConfig, address: str) -> AsyncIterator[StandIn]:
    """The stand-in, once every stage has come and is ready. The stages dial its address until it is there."""
    server = await open_server(address, services=[SERVICE])
    coordinator = StandIn(pipeline)
    rpc.add_CoordinatorServiceServicer_to_server(coordinator, server.grpc)
    await server.start()
    try:
        with anyio.fail_after(DEADLINE):
            await coordinator.complete.wait()
        yield coordinator
    finally:
        await server.stop(0)
