"""A stage whose weights are broken says so to the kubelet's probe and ends; what else is in its pod stays up."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.relay_process import RelayProcess, running_relay

from omni_cli.checkpoint import make_tiny_checkpoint
from omni_common.testing.mail import PATIENCE

pytestmark = pytest.mark.slow

SERVING = health_pb2.HealthCheckResponse.SERVING
NOBODY = "127.0.0.1:1"
WHY = "Stage 'thinker' cannot start. {file} is damaged, or is something else: "
_INTERVAL = 0.1


@contextmanager
def stage(folder: Path, **settings: str) -> Iterator[RelayProcess]:
    """Its process, watched as a relay's is."""
    given = {"COORDINATORS": NOBODY, "HEALTH_PORT": "0", "ARENA": str(folder), **settings}
    environment = {**os.environ, **{f"OMNI_STAGE_{name}": value for name, value in given.items()}}
    with Popen([sys.executable, "-m", "omni_stage"], env=environment, stderr=PIPE, text=True) as process:
        watched = RelayProcess(process)
        try:
            yield watched
        finally:
            process.kill()
            watched.ended()


def probe(process: RelayProcess) -> tuple[str, str]:
    """As the kubelet does it: status and message, of the answer or of the error."""
    port = process.logged("probes are served", within=PATIENCE)["port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = ask(health_pb2.HealthCheckRequest(service="readiness"), timeout=PATIENCE)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status), ""


def probe_until(process: RelayProcess, other_than: str) -> tuple[str, str]:
    """A probe comes again and again; that it does so is the kubelet's way."""
    deadline = time.monotonic() + 3 * PATIENCE
    while (told := probe(process))[0] == other_than:
        assert time.monotonic() < deadline, f"it stays {told}"
        time.sleep(_INTERVAL)
    return told


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Weights that were cut short on their way."""
    folder = tmp_path / "weights"
    make_tiny_checkpoint("qwen3-omni", folder)
    os.truncate(folder / "model.safetensors", 5000)
    return folder


def test_why_a_stage_cannot_load_is_the_probe_s_answer_and_its_pod_stays_up(tmp_path: Path, broken: Path) -> None:
    arena = tmp_path / "pod"
    arena.mkdir()
    thinker: Mapping[str, str] = {"FAMILY": "qwen3-omni", "STAGE": "thinker", "REPLICA": "p-0", "MODEL": str(broken)}
    neighbour: Mapping[str, str] = {"FAMILY": "echo", "STAGE": "say", "REPLICA": "p-1"}
    with (
        running_relay(arena, HEALTH_PORT="0", ARENA_SIZE="32MiB", EXTENT_SIZE="1MiB") as relay,
        stage(arena, **neighbour) as other,
        stage(arena, **thinker, STAY_FAILED="60s") as failing,
    ):
        assert probe_until(failing, "NOT_SERVING") == ("FAILED_PRECONDITION", last_words(failing))
        assert failing.ended() == 1
        assert last_words(failing).startswith(WHY.format(file=broken / "model.safetensors"))
        assert probe_until(other, "NOT_SERVING") == ("SERVING", "")
        assert probe(relay) == ("SERVING", "")


def last_words(process: RelayProcess) -> str:
    """What it leaves as its termination message, once it has ended."""
    process.ended()
    return str(process.log[-1]["msg"])
