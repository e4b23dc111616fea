"""A collector of spans: a real OTLP server over gRPC that keeps what it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from omni_common.telemetry import spans

Value = str | int | float | bool


@dataclass(frozen=True)
class Spanned:
    """One span as it arrived; `service` and `process` are its sender's."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    service: str
    process: str
    failed: bool
    attributes: Mapping[str, Value]
    events: tuple[str, ...]

    @property
    def outcome(self) -> Value:
        return self.attributes[spans.OUTCOME]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span, and the bytes of every request as they came."""

    def __init__(self) -> None:
        self.spans: list[Spanned] = []
        self.raw = bytearray()
        self.port = 0
        self._news = anyio.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def Export(self, request: Any, context: Any) -> Any:
        self.raw += request.SerializeToString()
        self.spans += _spans_of(request)
        self._news.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    async def until(self, holds: Callable[[list[Spanned]], bool], *, within: float = 15) -> list[Spanned]:
        """All spans, once they are such."""
        with anyio.move_on_after(within):
            while not holds(self.spans):
                self._news = anyio.Event()
                await self._news.wait()
        assert holds(self.spans), sorted(span.name for span in self.spans[:100])
        return self.spans


@asynccontextmanager
async def collecting(port: int = 0) -> AsyncIterator[Collector]:
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


def _spans_of(request: Any) -> list[Spanned]:
    return [
        _spanned(span, _values(sender.resource.attributes))
        for sender in request.resource_spans
        for scope in sender.scope_spans
        for span in scope.spans
    ]


def _spanned(span: Any, sender: Mapping[str, Value]) -> Spanned:
    return Spanned(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        str(sender["service.name"]),
        str(sender["service.instance.id"]),
        span.status.code == span.status.STATUS_CODE_ERROR,
        _values(span.attributes),
        tuple(event.name for event in span.events),
    )


def _values(attributes: Any) -> dict[str, Value]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
