"""The launcher with real processes, which are small: what dies is restarted, what is stopped leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import psutil
import pytest

from omni_cli.errors import LaunchFailed, leaves
from omni_cli.launcher.plan import ProcessSpec, Tier
from omni_cli.launcher.processes import open_starters
from omni_cli.launcher.supervisor import Ended, Supervisor, supervised
from omni_common.clock import monotonic

pytestmark = pytest.mark.anyio

FAMILY = "tickers"

# A service: says that it runs by connecting to a socket, then does as it is told by its settings.
SERVICE = """
import os, signal, socket, sys

def main():
    if os.environ["BEHAVIOUR"] == "crash":
        print("the weights are missing")
        sys.exit(3)
    if os.environ["BEHAVIOUR"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_UNIX) as report:
        report.connect(os.environ["REPORT"])
        report.sendall(f"{os.environ['NAME']} {os.getpid()}".encode())
        while True:
            signal.pause()
"""


class Reports:
    """Hears from every service that starts, and knows of each connection that is still open: its process lives."""

    def __init__(self, listener: anyio.abc.Listener[anyio.abc.SocketStream], path: Path) -> None:
        self._listener = listener
        self.path = path
        self._send, self._heard = anyio.create_memory_object_stream[tuple[str, int]](100)
        self.ended: list[str] = []

    async def listen(self) -> None:
        await self._listener.serve(self._hear)

    async def _hear(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            name, pid = (await stream.receive()).decode().split()
            await self._send.send((name, int(pid)))
            try:
                await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.ended.append(name)

    async def next(self) -> tuple[str, int]:
        with anyio.fail_after(20):
            return await self._heard.receive()

    def close(self) -> None:
        self._send.close()
        self._heard.close()


@pytest.fixture(autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ticker"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SERVICE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
async def reports(tmp_path: Path) -> AsyncIterator[Reports]:
    path = tmp_path / "reports"
    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        reports = Reports(listener, path)
        tasks.start_soon(reports.listen)
        yield reports
        tasks.cancel_scope.cancel()
        reports.close()


@pytest.fixture
def ended() -> list[Ended]:
    return []


def spec(name: str, reports: Reports, *, tier: Tier = Tier.STAGE, behaviour: str = "wait") -> ProcessSpec:
    settings = {"REPORT": str(reports.path), "NAME": name, "BEHAVIOUR": behaviour}
    return ProcessSpec(name, "ticker", tier, settings, FAMILY if tier is Tier.STAGE else "")


@asynccontextmanager
async def mesh(
    *specs: ProcessSpec,
    logs: Path,
    ended: Callable[[Ended], None],
    grace: float = 10,
    preload: Sequence[str] = ("json",),
) -> AsyncIterator[Supervisor]:
    async with open_starters({FAMILY: preload}, logs) as starters:
        supervisor = Supervisor(starters, logs=logs, report=ended, clock=monotonic, grace=grace)
        async with supervised(supervisor, specs):
            yield supervisor


def living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)]


async def test_stopping_goes_from_the_gateway_to_the_stages_and_leaves_no_process(
    reports: Reports, tmp_path: Path, ended: list[Ended]
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    specs = (
        spec("stage", reports),
        spec("coordinator", reports, tier=Tier.COORDINATOR),
        spec("gateway", reports, tier=Tier.GATEWAY),
    )
    async with mesh(*specs, logs=tmp_path, ended=ended.append) as supervisor:
        started = dict([await reports.next() for _ in specs])
        assert supervisor.running() == started
        assert psutil.Process(started["stage"]).name() == "stage"
    assert living(list(started.values())) == []
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before
    assert reports.ended == ["gateway", "coordinator", "stage"]
    assert ended == []


async def test_stopping_does_not_wait_for_imports(reports: Reports, tmp_path: Path, ended: list[Ended]) -> None:
    # It tells that it is being imported, and would be until it is killed.
    (tmp_path / "endless.py").write_text("import ticker.__main__\nticker.__main__.main()\n")
    settings = {"REPORT": str(reports.path), "NAME": "import", "BEHAVIOUR": "stubborn"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        with anyio.fail_after(20):
            async with mesh(spec("never", reports), logs=tmp_path, ended=ended.append, preload=["endless"]):
                _, importing = await reports.next()
    assert living([importing]) == []
    assert ended == []


@pytest.mark.parametrize("tier", [Tier.STAGE, Tier.GATEWAY])
async def test_a_process_that_is_killed_is_started_again(
    reports: Reports, tmp_path: Path, ended: list[Ended], tier: Tier
) -> None:
    async with mesh(spec("victim", reports, tier=tier), logs=tmp_path, ended=ended.append):
        _, first = await reports.next()
        os.kill(first, signal.SIGKILL)
        _, second = await reports.next()
    assert first != second
    assert [(e.name, e.why, e.again_in) for e in ended] == [("victim", "was ended by SIGKILL", 0.2)]


async def test_when_the_fork_server_dies_its_stages_die_with_it_and_all_come_back(
    reports: Reports, tmp_path: Path, ended: list[Ended]
) -> None:
    async with mesh(spec("one", reports), spec("two", reports), logs=tmp_path, ended=ended.append):
        pids = [(await reports.next())[1] for _ in range(2)]
        server = psutil.Process(pids[0]).parent()
        assert server is not None
        server.kill()
        again = dict([await reports.next() for _ in range(2)])
        # The kernel tells of their end by closing their connections; their new parent may take its time to reap them.
        assert sorted(reports.ended) == ["one", "two"]
    assert again.keys() == {"one", "two"}


async def test_a_process_that_will_not_stop_is_killed_after_the_grace(
    reports: Reports, tmp_path: Path, ended: list[Ended]
) -> None:
    async with mesh(spec("mule", reports, behaviour="stubborn"), logs=tmp_path, ended=ended.append, grace=0.2):
        _, pid = await reports.next()
    assert living([pid]) == []


async def test_a_process_that_never_gets_going_ends_the_launch_with_its_last_words(
    reports: Reports, tmp_path: Path, ended: list[Ended]
) -> None:
    with pytest.RaisesGroup(LaunchFailed, flatten_subgroups=True) as raised:
        async with mesh(spec("lame", reports, behaviour="crash"), logs=tmp_path, ended=ended.append):
            with anyio.fail_after(20):
                await anyio.sleep_forever()
    assert [str(error) for error in leaves(raised.value)] == [
        "lame ended with exit code 3, 3 times in a row.\nIts last words:\nthe weights are missing"
    ]
    assert [e.again_in for e in ended] == [0.2, 0.4]


async def test_once_the_mesh_was_ready_a_process_is_restarted_however_often_it_dies(
    reports: Reports, tmp_path: Path, ended: list[Ended]
) -> None:
    async with mesh(spec("victim", reports), logs=tmp_path, ended=ended.append) as supervisor:
        supervisor.mesh_is_ready()
        for _ in range(4):
            _, pid = await reports.next()
            os.kill(pid, signal.SIGKILL)
        await reports.next()
    assert [e.again_in for e in ended] == [0.2, 0.4, 0.8, 1.6]
