"""`omni top` as a user has it, beside a mesh of echo."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from tests.integration.up_process import STAGES, Up, say, up

from omni_cli.launcher.state import RunState, newest_state

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COMMAND = [sys.executable, "-m", "omni_cli", "top"]
PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
# Every tensor leaves its pod, by a relay.
APART = {"OMNI_STAGE_INLINE_LIMIT": "0"}


def environment(run: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(run), "XDG_RUNTIME_DIR": str(run), "TERM": "xterm"}


async def table_of(run: Path, *arguments: str) -> list[list[str]]:
    """The words of each line."""
    with anyio.fail_after(20):
        done = await anyio.run_process([*COMMAND, "--once", "--interval", "0.2", *arguments], env=environment(run))
    return [line.split() for line in done.stdout.decode().splitlines()]


def state_of(run: Path) -> RunState:
    state = newest_state(run)
    assert state is not None
    return state


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the mesh that most tests look at."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
async def watched(run: Path, anyio_backend: str) -> AsyncIterator[Up]:
    async with up(run, "--apart", settings=APART) as mesh:
        await mesh.ready()
        yield mesh
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_stages_edges_and_relays_of_the_newest_run_are_shown(watched: Up, run: Path) -> None:
    assert "hello" in (await say(watched, "hello mesh", image=PHOTO)).lower()
    lines = await table_of(run)
    phases = {words[0]: words[1] for words in lines if len(words) > 1}
    assert {name: phases[name] for name in phases if name.endswith("-0")} == {
        f"{kind}echo-{stage}-0": "serving" for stage in STAGES for kind in ("", "relay-")
    }
    edges = [words for words in lines if words and ">" in words[0]]
    assert {(edge, transport) for edge, transport, *_ in edges} >= {("echo/split>count", "tcp")}
    arenas = {words[0]: words[2:4] for words in lines if words and words[0].startswith("relay-")}
    assert set(map(tuple, arenas.values())) == {("128", "MiB")}


@pytest.mark.usefixtures("watched")
async def test_addresses_may_be_given_and_a_silent_one_is_named(run: Path, tmp_path: Path) -> None:
    at = {process.name: process.metrics for process in state_of(run).processes}
    lines = await table_of(tmp_path, f"http://{at['echo-say-0']}", "http://127.0.0.1:1/metrics")
    assert [words[:2] for words in lines if words and words[0] == at["echo-say-0"]] == [[at["echo-say-0"], "serving"]]
    assert ["No", "answer", "from", "127.0.0.1:1."] in lines


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.usefixtures("watched")
async def test_on_a_terminal_the_table_lives_until_it_is_stopped(run: Path) -> None:
    with terminal() as (ours, theirs):
        process = await anyio.open_process(
            [*COMMAND, "--interval", "0.1"], env=environment(run), stdout=theirs, stderr=subprocess.DEVNULL
        )
        async with process:
            await screens(ours, 3)
            process.send_signal(signal.SIGINT)
            with anyio.fail_after(20):
                assert await process.wait() == 0


async def screens(terminal: int, number: int) -> None:
    """Waits until so many tables have been drawn."""
    shown = b""
    with anyio.fail_after(20):
        while shown.count(b"echo-split-0") < number:
            await anyio.wait_readable(terminal)
            shown += os.read(terminal, 1 << 16)


async def test_it_ends_with_a_sentence_when_the_mesh_does(tmp_path: Path) -> None:
    async with up(tmp_path) as mesh:
        await mesh.ready()
        process = await anyio.open_process([*COMMAND, "--interval", "0.5"], env=environment(tmp_path))
        async with process:
            assert process.stdout is not None
            assert process.stderr is not None
            with anyio.fail_after(20):
                await process.stdout.receive()
                assert await mesh.stop(signal.SIGTERM) == 0
                said = await process.stderr.receive()
                assert await process.wait() == 1
    assert said.decode().startswith("No process answers: the mesh has ended")


async def test_where_no_mesh_runs_it_says_how_to_have_one(tmp_path: Path) -> None:
    done = await anyio.run_process([*COMMAND, "--once"], env=environment(tmp_path), check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().startswith("No mesh of yours runs on this machine. Start one with `omni up`")


@pytest.mark.parametrize("address", ["here", "ftp://127.0.0.1/metrics", "http://", "http://host:port/metrics"])
async def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    done = await anyio.run_process([*COMMAND, address], env=environment(tmp_path), check=False)
    assert done.stderr.decode() == f"{address} is no URL; one is http://127.0.0.1:9100/metrics.\n"
