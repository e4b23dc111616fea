"""What the kubelet hears of a real process: while it starts, serves, drains, and when its event loop stands still."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from omni_common.health import Hearts, serve_health

PROGRAM = """
import sys
import anyio
from pydantic_settings import SettingsConfigDict
from omni_common.lifecycle import CannotStart, run_service
from omni_common.settings import ServiceSettings

class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OMNI_THING_")

class Thing:
    def __init__(self, settings):
        pass

    async def run(self, started):
        lines = anyio.wrap_file(sys.stdin)
        async for line in lines:
            if line == "start\\n":
                started()
            if line == "cannot start\\n":
                raise CannotStart("There is no paint in the pot,\\n" + 2000 * "or ")
            if line == "break\\n":
                raise OSError("no port")
            if line == "block\\n":
                print("blocked", flush=True)
                sys.stdin.readline()
                print("free", flush=True)
        await anyio.sleep_forever()

    async def drain(self, deadline):
        print("draining", flush=True)
        await anyio.sleep_forever()

run_service(ThingSettings, Thing)
"""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE = 20.0
_INTERVAL = 0.05


class Thing:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        port = self.logged("probes are served")["port"]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def told(self, word: str) -> None:
        self._in.write(word + "\n")
        self._in.flush()

    def says(self, word: str) -> None:
        assert self._out.readline().strip() == word

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def logged(self, message: str) -> dict[str, Any]:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            record = json.loads(line)
            if record["msg"] == message:
                return dict(record)
        raise AssertionError(f"the process never logged {message!r}")

    def asked(self, service: str) -> int:
        return int(self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE).status)

    def refused(self, service: str) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as failed:
            self.asked(service)
        return failed.value.code(), failed.value.details() or ""

    def ended(self) -> int:
        return self._process.wait(PATIENCE)

    def until(self, service: str, status: int) -> None:
        """A probe is an external endpoint without a way to wait, so it is asked again and again."""
        deadline = time.monotonic() + PATIENCE
        while self.asked(service) != status:
            assert time.monotonic() < deadline, f"{service} does not become {status}"
            time.sleep(_INTERVAL)

    def statuses(self) -> dict[str, int]:
        answer = self._health.List(health_pb2.HealthListRequest(), timeout=PATIENCE)
        return {name: int(one.status) for name, one in answer.statuses.items()}


@contextmanager
def thing(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[Thing]:
    for name, value in {"HEALTH_PORT": "0", **variables}.items():
        monkeypatch.setenv(f"OMNI_THING_{name}", value)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            made = Thing(running)
            yield made
            made.channel.close()
        finally:
            running.kill()


def test_ready_once_it_has_started_and_no_more_while_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch) as probed:
        assert probed.statuses() == {"": NOT_SERVING, "readiness": NOT_SERVING, "liveness": SERVING}
        probed.told("start")
        probed.until("readiness", SERVING)
        assert probed.asked("") == SERVING
        probed.signal(signal.SIGTERM)
        probed.says("draining")
        assert probed.statuses() == {"": NOT_SERVING, "readiness": NOT_SERVING, "liveness": SERVING}


def test_a_blocked_event_loop_is_not_alive_and_is_again_when_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch, LOOP_TIMEOUT="1s") as probed:
        probed.told("start")
        probed.until("readiness", SERVING)
        probed.told("block")
        probed.says("blocked")
        probed.until("liveness", NOT_SERVING)
        assert probed.logged("what has to go round in this process stands still")["what"] == "event loop"
        probed.told("go on")
        probed.says("free")
        probed.until("liveness", SERVING)


def test_what_is_not_there_to_ask_for_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch) as probed, pytest.raises(grpc.RpcError) as failed:
        probed.asked("omni.stage.v1.StageService")
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert failed.value.details() == "There are readiness and liveness to ask for."


@pytest.mark.parametrize("service", ["", "readiness"])
def test_who_asks_a_process_that_cannot_start_is_told_why_and_then_it_ends(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    with thing(monkeypatch, STAY_FAILED="60s") as probed:
        probed.told("cannot start")
        why = probed.logged("stays for a probe to hear why it cannot start")["why"]
        assert probed.asked("liveness") == SERVING, "what is told and ends by itself needs no killing"
        assert (why[:33], len(why)) == ("There is no paint in the pot, or ", 800)
        assert probed.refused(service) == (grpc.StatusCode.FAILED_PRECONDITION, why)
        assert probed.ended() == 1


def test_any_failure_before_the_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch, STAY_FAILED="60s") as probed:
        probed.told("break")
        probed.logged("stays for a probe to hear why it cannot start")
        assert probed.refused("readiness")[1] == "The process failed before it could start. OSError: no port."
        assert probed.ended() == 1


def test_a_process_that_cannot_start_stays_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch, STAY_FAILED="200ms") as probed:
        probed.told("cannot start")
        assert probed.ended() == 1


def test_a_process_that_cannot_start_ends_when_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch, STAY_FAILED="60s") as probed:
        probed.told("cannot start")
        probed.logged("stays for a probe to hear why it cannot start")
        probed.signal(signal.SIGTERM)
        assert probed.ended() == 1, "its reason is not lost"


def test_what_fails_after_its_start_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with thing(monkeypatch, STAY_FAILED="60s") as probed:
        probed.told("start")
        probed.until("readiness", SERVING)
        probed.told("break")
        assert probed.ended() == 1


def test_a_port_that_is_taken_ends_the_process_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_health("127.0.0.1", 0, ready=bool, alive=bool) as port:
        monkeypatch.setenv("OMNI_THING_HEALTH_PORT", str(port))
        ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE)
    last = json.loads(ended.stderr.splitlines()[-1])
    assert ended.returncode == 1
    assert last["msg"] == (
        f"A port for metrics or probes cannot be had on 127.0.0.1: cannot serve the probes on 127.0.0.1:{port}; "
        "another process may have the port."
    )
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_said() -> None:
    with (
        serve_health("127.0.0.1", 0, ready=bool, alive=bool) as port,
        pytest.raises(OSError, match=f"cannot serve the probes on 127.0.0.1:{port}"),
        serve_health("127.0.0.1", port, ready=bool, alive=bool),
    ):
        pass


def test_every_heart_has_to_beat_and_the_one_that_does_not_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    now, step = 100.0, 100.0
    hearts = Hearts(clock=lambda: now)
    hearts.watch("event loop", lambda: now, 1)
    hearts.watch("scheduler", lambda: step, 5)
    assert hearts.beat()
    now = 105.0
    assert hearts.beat()
    now = 105.1
    assert not hearts.beat()
    assert not hearts.beat()
    step = now
    assert hearts.beat()
    step = float("-inf")
    assert not hearts.beat()
    assert [vars(record)["what"] for record in caplog.records] == ["scheduler", "scheduler"]


def test_calls_whose_request_never_comes_hold_up_no_probe_and_do_not_last() -> None:
    def silence() -> Iterator[Any]:
        over.wait(PATIENCE)
        yield from ()

    over = threading.Event()
    with (
        serve_health("127.0.0.1", 0, ready=lambda: True, alive=lambda: True) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as theirs,
        grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as kubelets,
    ):
        check: Any = theirs.stream_unary("/grpc.health.v1.Health/Check")
        half = check.future(silence(), wait_for_ready=True)
        theirs_too = health_pb2_grpc.HealthStub(theirs)  # on their connection, so the half call came before
        for health in (theirs_too, health_pb2_grpc.HealthStub(kubelets)):
            answer = health.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=PATIENCE)
            assert answer.status == SERVING
        assert half.exception(PATIENCE).code() is grpc.StatusCode.UNAVAILABLE
        over.set()


def test_no_port_serves_nothing() -> None:
    with serve_health("127.0.0.1", None, ready=bool, alive=bool) as port:
        assert port is None
