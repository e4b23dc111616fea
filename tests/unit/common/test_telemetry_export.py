"""Spans leave for a real collector; one that is not there, or does not answer, holds nothing up."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict
from tests.unit.relay.wire.authority import Authority

from omni_common.request import TraceContext
from omni_common.settings import ServiceSettings
from omni_common.telemetry import spans, tracing
from omni_common.telemetry.export import export_traces


class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OMNI_THING_", frozen=True)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: set[tuple[str, str | bytes]] = set()
        self.came = threading.Event()

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.metadata |= set(context.invocation_metadata())
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def serving(
    collector: Collector, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    yield port
    server.stop(None).wait()


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are taken and nobody says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        yield listener.getsockname()[1]


def exporting(endpoint: str) -> Any:
    return export_traces(ThingSettings(otlp_endpoint=endpoint), service="thing", version="1.2")


def test_by_default_there_are_no_traces() -> None:
    with export_traces(ThingSettings(), service="thing", version="1.2"):
        assert not tracing.is_on()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_spans_say_who_made_them_and_leave_at_the_latest_at_the_end(form: str) -> None:
    collector = Collector()
    with serving(collector) as port:
        with exporting(form.format(port)):
            assert tracing.is_on()
            tracing.end(tracing.begin("thing", TraceContext(), {spans.ROUTE: "x" * 1000}))
        assert not tracing.is_on()
        assert collector.came.wait(5)
    (sender,) = collector.requests[0].resource_spans
    about = {one.key: one.value.string_value for one in sender.resource.attributes}
    assert about["service.name"] == "omni-thing"
    assert about["service.version"] == "1.2"
    ((span,),) = (scope.spans for scope in sender.scope_spans)
    assert {one.key: len(one.value.string_value) for one in span.attributes}[spans.ROUTE] == 128


def test_https_goes_to_whom_the_certificate_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Authority(tmp_path, "ca").issue("localhost")
    credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.cert.read_bytes())])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(files.ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc")
    collector = Collector()
    with serving(collector, "localhost:0", credentials) as port:
        with exporting(f"https://localhost:{port}"):
            tracing.end(tracing.begin("thing", TraceContext()))
        assert collector.came.wait(5)
    assert ("api-key", "abc") in collector.metadata


@pytest.mark.parametrize("port", ["silent", "nobody"])
def test_a_collector_that_does_not_answer_holds_nothing_up(port: str, caplog: pytest.LogCaptureFixture) -> None:
    with silent() as taken, caplog.at_level(logging.DEBUG):
        endpoint = f"127.0.0.1:{taken if port == 'silent' else 1}"
        with exporting(endpoint):
            began = time.monotonic()
            for _ in range(10_000):  # several times what may wait
                tracing.end(tracing.begin("thing", TraceContext()))
            assert time.monotonic() - began < 10
            began = time.monotonic()
        assert time.monotonic() - began < 3
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_that_it_cannot_deliver_is_said_once_and_so_is_that_it_can() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
    with hearing(endpoint) as heard, exporting(endpoint):
        for _ in range(3):
            tracing.end(tracing.begin("thing", TraceContext()))
        assert heard.next() == "traces cannot be delivered and are dropped"
        tracing.end(tracing.begin("thing", TraceContext()))
        collector = Collector()
        with serving(collector, endpoint):
            tracing.end(tracing.begin("thing", TraceContext()))
            assert collector.came.wait(20)
            assert heard.next() == "traces are delivered again"


class Heard(logging.Handler):
    """What is said of one endpoint; exporters of earlier tests may still speak of theirs."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._said: queue.Queue[str] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        if vars(record).get("endpoint") == self._endpoint and "exported" not in record.getMessage():
            self._said.put(record.getMessage())

    def next(self) -> str:
        return self._said.get(timeout=20)


@contextmanager
def hearing(endpoint: str) -> Iterator[Heard]:
    logger, heard = logging.getLogger("omni_common.telemetry.export"), Heard(endpoint)
    level = logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)


@pytest.mark.parametrize("endpoint", ["collector:4317", "http://[::1]:4317", "https://traces.example.com:443"])
def test_endpoints(endpoint: str) -> None:
    assert ThingSettings(otlp_endpoint=endpoint).otlp_endpoint == endpoint


@pytest.mark.parametrize("wrong", ["", "collector", "ftp://collector:21", "a b:1", "http://user:secret@host:1", "::1"])
def test_what_is_no_endpoint_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        ThingSettings(otlp_endpoint=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_part_is_from_0_to_1(wrong: float) -> None:
    with pytest.raises(ValidationError):
        ThingSettings(trace_sampling=wrong)
