"""CoordinatorService: translates between its messages and the coordinator, and does nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

from grpc.aio import ServicerContext

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceServicer
from omni_common.rpc.convert import parse_request, render_output
from omni_common.rpc.duplex import server_duplex
from omni_common.telemetry.tracing import trace_from_headers
from omni_coordinator.attach import serve_stage
from omni_coordinator.connect import serve_gateway
from omni_coordinator.coordinator import Coordinator
from omni_coordinator.core.events import Finished
from omni_coordinator.finished import render_finished
from omni_coordinator.generate import OUTPUT_CREDITS, Admitted, Notice, Piece, generating
from omni_coordinator.submission import Submission


class CoordinatorService(CoordinatorServiceServicer):
    """The three ways in: simple callers, gateways, stage replicas."""

    def __init__(self, coordinator: Coordinator, *, hello_timeout: float) -> None:
        self._coordinator = coordinator
        self._hello_timeout = hello_timeout

    async def Generate(  # type: ignore[override]  # a coroutine that writes; the stub knows generators only
        self, request: pb.GenerateRequest, context: ServicerContext[pb.GenerateRequest, pb.GenerateResponse]
    ) -> None:
        submission = Submission(
            parse_request(request.request, None),
            OUTPUT_CREDITS,
            remaining=context.time_remaining(),
            trace=trace_from_headers({str(name): str(value) for name, value in context.invocation_metadata() or ()}),
        )
        request.Clear()  # its media live on in the submission alone
        duplex = server_duplex(context)
        async with generating(self._coordinator, submission) as notices:
            async for notice in notices:
                await duplex.write(_render(notice))

    async def Connect(  # type: ignore[override]
        self,
        request_iterator: AsyncIterator[pb.ConnectRequest],
        context: ServicerContext[pb.ConnectRequest, pb.ConnectResponse],
    ) -> None:
        await serve_gateway(self._coordinator, server_duplex(context), self._hello_timeout)

    async def Attach(  # type: ignore[override]
        self,
        request_iterator: AsyncIterator[pb.AttachRequest],
        context: ServicerContext[pb.AttachRequest, pb.AttachResponse],
    ) -> None:
        await serve_stage(self._coordinator, server_duplex(context), self._hello_timeout)


def _render(notice: Notice) -> pb.GenerateResponse:
    match notice:
        case Admitted(request_id):
            return pb.GenerateResponse(admitted=pb.Admitted(request_id=request_id))
        case Piece(index, output):
            return pb.GenerateResponse(output=render_output(output, index))
        case Finished():
            return pb.GenerateResponse(finished=render_finished(notice))
