"""Sends spans to an OpenTelemetry collector, by OTLP over gRPC.

A thread of its own does it, from a queue with room for 2048 spans: a collector that is slow, gone or never was costs
requests nothing, and what has no room is dropped. Nothing of the SDK is imported before it is asked for.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omni_common.settings import ServiceSettings
from omni_common.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

logger = logging.getLogger(__name__)

_ROOM = 2048  # spans that wait
_BATCH = 512
_PAUSE_MS = 1000  # between two exports
_TIMEOUT = 5.0  # seconds for one, with what is tried again
_FAREWELL = 1.5  # seconds for what is left when the process ends
_MAX_LENGTH = 128  # of an attribute's value
_MAX_COUNT = 64  # of attributes and of events of a span


@contextmanager
def export_traces(settings: ServiceSettings, *, service: str, version: str) -> Iterator[None]:
    """Makes spans and sends them, where the settings say where to."""
    if settings.otlp_endpoint is None:
        yield
        return
    provider = _provider(settings.otlp_endpoint, settings.trace_sampling, service, version)
    tracing.use(provider.get_tracer("omni", version))
    logger.info("traces are exported", extra={"endpoint": settings.otlp_endpoint, "sampling": settings.trace_sampling})
    try:
        yield
    finally:
        tracing.use(None)
        _shut_down(provider)


def _shut_down(provider: TracerProvider) -> None:
    """Sends what is left, for no longer than a moment: the SDK itself would wait for half a minute."""
    thread = threading.Thread(target=provider.shutdown, name="traces-end", daemon=True)
    thread.start()
    thread.join(_FAREWELL)


def _provider(endpoint: str, sampling: float, service: str, version: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    # The SDK's and the exporter's own words, several for each export that fails: `_exporter` says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    resource = Resource(
        {
            "service.name": f"omni-{service}",
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    limits = SpanLimits(
        max_span_attributes=_MAX_COUNT, max_events=_MAX_COUNT, max_links=0, max_span_attribute_length=_MAX_LENGTH
    )
    provider = TracerProvider(
        ParentBased(TraceIdRatioBased(sampling)), resource, shutdown_on_exit=False, span_limits=limits
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            _exporter(endpoint), max_queue_size=_ROOM, schedule_delay_millis=_PAUSE_MS, max_export_batch_size=_BATCH
        )
    )
    return provider


def _exporter(endpoint: str) -> Any:
    """Says once that the collector cannot be reached, and once that it can again."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Exporter(OTLPSpanExporter):
        lost = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            lost = result is not SpanExportResult.SUCCESS
            if lost and not self.lost:
                logger.warning("traces cannot be delivered and are dropped", extra={"endpoint": endpoint})
            elif self.lost and not lost:
                logger.info("traces are delivered again", extra={"endpoint": endpoint})
            self.lost = lost
            return result

    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    # A collector without TLS is one of the cluster's own, to which no proxy leads.
    direct = (("grpc.enable_http_proxy", 0),) if url.startswith("http://") else None
    return Exporter(endpoint=url, timeout=_TIMEOUT, channel_options=direct)  # type: ignore[arg-type]
