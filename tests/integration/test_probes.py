"""What the kubelet hears of each service's real process, with none of its peers there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from omni_stage.models import load_pipeline_config

SERVING = health_pb2.HealthCheckResponse.SERVING
PATIENCE = 60.0
_INTERVAL = 0.1
NOBODY = "127.0.0.1:1"


def settings_of(service: str, folder: Path) -> Mapping[str, str]:
    match service:
        case "gateway":
            return {"BIND": "127.0.0.1:0", "COORDINATORS": NOBODY}
        case "coordinator":
            return {"BIND": "127.0.0.1:0", "PIPELINES": str(folder / "echo.json")}
        case "stage":
            return {"FAMILY": "echo", "STAGE": "split,say", "REPLICA": "s-0", "COORDINATORS": NOBODY}
        case _:
            return {"BIND": "127.0.0.1:0", "FOLDER": str(folder), "ARENA_SIZE": "32MiB", "EXTENT_SIZE": "1MiB"}


@pytest.mark.parametrize("service", ["gateway", "coordinator", "stage", "relay"])
def test_a_service_is_alive_and_ready_whatever_its_peers_are(service: str, tmp_path: Path) -> None:
    (tmp_path / "echo.json").write_text(load_pipeline_config("echo").model_dump_json())
    given = {"HEALTH_PORT": "0", **settings_of(service, tmp_path)}
    environment = {**os.environ, **{f"OMNI_{service.upper()}_{name}": value for name, value in given.items()}}
    command = [sys.executable, "-m", f"omni_{service}"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = next(record["port"] for record in map(json.loads, process.stderr) if "probes" in record["msg"])
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                deadline = time.monotonic() + PATIENCE
                # A probe is an external endpoint without a way to wait, so it is asked again and again.
                while health.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=10).status != SERVING:
                    assert time.monotonic() < deadline, "it never becomes ready"
                    time.sleep(_INTERVAL)
                answer = health.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=10)
                assert answer.status == SERVING
            process.terminate()
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
        finally:
            process.kill()
