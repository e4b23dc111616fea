"""Probes as a kubelet makes them: gRPC health, and HTTP whose certificate nobody checks."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.chart.documents import Document, port_of


def passes(probe: Document, address: str, container: Document) -> bool:
    """Whether the probe passes now."""
    if "grpc" in probe:
        return _grpc(f"{address}:{probe['grpc']['port']}", probe["grpc"].get("service", ""), probe["timeoutSeconds"])
    asked = probe["httpGet"]
    port = port_of(container, asked["port"])
    return _http(f"{asked.get('scheme', 'HTTP').lower()}://{address}:{port}{asked['path']}", probe["timeoutSeconds"])


def _grpc(target: str, service: str, seconds: float) -> bool:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _http(url: str, seconds: float) -> bool:
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=careless))
    try:
        with opener.open(url, timeout=seconds) as answer:
            return bool(answer.status < 400)
    except (urllib.error.URLError, OSError):
        return False
