"""The spans that this process makes, kept as the SDK made them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from omni_common.telemetry import tracing


@contextmanager
def recording(sampling: float = 1.0) -> Iterator[InMemorySpanExporter]:
    """Traces are on inside, and what they make is kept."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(ParentBased(TraceIdRatioBased(sampling)), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider.get_tracer("test"))
    try:
        yield exporter
    finally:
        tracing.use(None)
