"""The life of a real process: signals, health, drain, exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROGRAM = """
import gc
import sys
import anyio
from pydantic_settings import SettingsConfigDict
from omni_common.lifecycle import CannotStart, run_service
from omni_common.settings import ServiceSettings

class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OMNI_THING_")

def say(word):
    print(word, flush=True)

class Health:
    async def set_serving(self, serving):
        say(f"health {serving}")
        if sys.argv[1] == "looks at its garbage":
            say(f"spared {len(gc.get_objects()) < gc.get_freeze_count()}")

class Thing:
    def __init__(self, settings):
        say("built")

    async def run(self, started):
        if sys.argv[1] == "fails at once":
            raise OSError("no port")
        if sys.argv[1] == "cannot start":
            async with anyio.create_task_group():
                raise CannotStart("There is no paint in the pot.")
        if sys.argv[1] == "ends by itself":
            started()
            return
        started(Health())
        try:
            await anyio.sleep_forever()
        finally:
            say(f"cancelled serving={started.serving}")

    async def drain(self, deadline):
        say(f"drain {deadline.remaining:.0f}")
        if sys.argv[1] == "never drains":
            await anyio.sleep_forever()
        say("drained")

run_service(ThingSettings, Thing)
"""


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def says(self, *words: str) -> None:
        assert self._process.stdout is not None
        for word in words:
            assert self._process.stdout.readline().strip() == word

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def logged(self, message: str) -> dict[str, Any]:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            record = json.loads(line)
            if record["msg"] == message:
                return dict(record)
        raise AssertionError(f"the process never logged {message!r}")

    def ends(self) -> tuple[int, str, str]:
        out, err = self._process.communicate(timeout=20)
        return self._process.returncode, out, err


@contextmanager
def process(kind: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[Process]:
    for name, value in variables.items():
        monkeypatch.setenv(f"OMNI_THING_{name}", value)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield Process(running)
        finally:
            running.kill()


def test_what_cannot_start_says_why_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("cannot start", monkeypatch) as thing:
        code, _, err = thing.ends()
    last = json.loads(err.splitlines()[-1])
    assert code == 1
    assert (last["level"], last["msg"]) == ("ERROR", "There is no paint in the pot.")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"DRAIN": "soon"}, "OMNI_THING_DRAIN is refused: 'soon' is not a duration such as 30s, 500ms or 2m."),
        ({"DRIAN": "1s"}, "OMNI_THING_DRIAN is not a setting of ThingSettings; check the spelling."),
        ({"METRICS_PORT": "-1"}, "OMNI_THING_METRICS_PORT is refused: Input should be greater than or equal to 0."),
    ],
)
def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], why: str) -> None:
    with process("drains", monkeypatch, **variables) as thing:
        code, _, err = thing.ends()
    (line,) = err.splitlines()
    assert (code, json.loads(line)["msg"]) == (1, why)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_it_off_health_then_drains_then_cancels_then_exits_well(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with process("drains", monkeypatch, DRAIN="20s") as thing:
        thing.says("built", "health True")
        thing.signal(number)
        thing.says("health False", "drain 20", "drained", "cancelled serving=False")
        assert thing.ends()[:2] == (0, "")


def test_what_it_has_when_it_serves_is_not_looked_through_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("looks at its garbage", monkeypatch) as thing:
        thing.says("built", "health True", "spared True")


def test_a_drain_that_takes_too_long_is_ended_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("never drains", monkeypatch, DRAIN="50ms") as thing:
        thing.says("built", "health True")
        thing.signal(signal.SIGTERM)
        thing.says("health False", "drain 0", "cancelled serving=False")
        code, _, err = thing.ends()
        assert code == 0
        assert "the drain ended with requests still alive" in err


def test_a_second_signal_cuts_the_drain_short(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("never drains", monkeypatch, DRAIN="1h") as thing:
        thing.says("built", "health True")
        thing.signal(signal.SIGTERM)
        thing.says("health False", "drain 3600")
        thing.signal(signal.SIGTERM)
        thing.says("cancelled serving=False")
        assert thing.ends()[0] == 0


@pytest.mark.parametrize(
    ("kind", "why"), [("fails at once", "no port"), ("ends by itself", "the service ended by itself")]
)
def test_a_service_that_cannot_go_on_exits_badly_and_says_why(
    monkeypatch: pytest.MonkeyPatch, kind: str, why: str
) -> None:
    with process(kind, monkeypatch) as thing:
        code, _, err = thing.ends()
        assert code == 1
        assert why in err


def test_metrics_say_what_runs_and_that_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("drains", monkeypatch, METRICS_PORT="0") as thing:
        port = thing.logged("metrics are served")["port"]
        thing.says("built", "health True")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        assert "omni_serving 1.0" in text
        assert 'omni_build_info{service="thing",version="unknown"} 1.0' in text
