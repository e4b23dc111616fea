"""`omni up` as a user has it: the command itself, a whole mesh of processes, the echo pipeline."""

from __future__ import annotations

import re
import signal
import socket
import sys
import wave
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import psutil
import pytest
from tests.integration.up_process import relays_of, replicas_of, say, up

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"


def arenas_of(stage: psutil.Process) -> set[Path]:
    """The folder of this run's arenas, from what the stage has mapped."""
    return {Path(m.path).parents[1] for m in stage.memory_maps() if m.path.endswith("/arena")}


def samples_in(path: Path) -> int:
    with wave.open(str(path)) as file:
        frames: int = file.getnframes()
    return frames


def runs_in(base: Path) -> list[Path]:
    return [path for path in base.iterdir() if path.name.startswith(("omni-", ".omni-"))]


async def gone(processes: list[psutil.Process]) -> bool:
    _, alive = await anyio.to_thread.run_sync(psutil.wait_procs, processes, 5)
    # An orphan waits for its new parent to reap it; it runs no more.
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


async def test_a_mesh_comes_up_serves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with up(tmp_path) as mesh:
        await mesh.ready()
        children = mesh.children()
        others = {"coordinator-0", "gateway-0", "fork-echo", "fork-relay"}
        assert children.keys() == replicas_of("echo") | relays_of("echo") | others
        assert {children[relay].parent() for relay in relays_of("echo")} == {children["fork-relay"]}
        arenas = arenas_of(children["echo-split-0"])
        assert arenas
        assert "hello" in (await say(mesh, "hello mesh")).lower()
        assert await mesh.stop(signal.SIGTERM) == 0
    assert await gone(list(children.values()))
    assert not any(folder.exists() for folder in arenas)
    assert runs_in(tmp_path) == []


async def test_omni_chat_shows_the_text_writes_the_speech_and_draws_the_stages(tmp_path: Path) -> None:
    speech = tmp_path / "out.wav"
    async with up(tmp_path) as mesh:
        await mesh.ready()
        url = f"http://127.0.0.1:{mesh.port}/v1"
        command = ["chat", "hello mesh", "--speak", str(speech), "--url", url, "--timings"]
        with anyio.fail_after(20):
            done = await anyio.run_process([sys.executable, "-m", "omni_cli", *command])
        await mesh.stop(signal.SIGTERM)
    text, spoken, header, *bars = done.stdout.decode().splitlines()
    assert "hello" in text.lower()
    assert spoken.endswith(f"s of speech are in {speech}")
    assert header.split() == ["stage", "first", "in", "first", "out", "end"]
    assert {bar.split()[0] for bar in bars[:-1]} >= {"split", "join", "say", "write", "beep"}
    assert samples_in(speech) > 0


async def test_the_grpc_client_of_the_readme_works(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "Generate" in code)
    async with up(tmp_path) as mesh:
        address = (await mesh.until(r"gRPC callers find the coordinator at (\S+)$"))[1]
        await mesh.ready()
        code = snippet.replace("127.0.0.1:7070", address).replace("qwen3-omni", "echo")
        with anyio.fail_after(20):
            done = await anyio.run_process([sys.executable, "-c", code])
        assert "hello" in done.stdout.decode().lower()
        await mesh.stop(signal.SIGINT)


async def test_a_killed_stage_comes_back_and_serves_again(tmp_path: Path) -> None:
    async with up(tmp_path) as mesh:
        await mesh.ready()
        mesh.children()["echo-join-0"].kill()
        await mesh.until(r"echo-join-0 was ended by SIGKILL; starting it again in 0\.2 s\.")
        await mesh.until(r"Every stage is ready again\.")
        assert "hello" in (await say(mesh, "hello again")).lower()
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_a_killed_relay_comes_back_and_the_stages_did_not_stop(tmp_path: Path) -> None:
    async with up(tmp_path) as mesh:
        await mesh.ready()
        stages = {name: mesh.children()[name].pid for name in replicas_of("echo")}
        (relay,) = relays_of("echo", "front")
        mesh.children()[relay].kill()
        await mesh.until(r"relay-echo-front-0 was ended by SIGKILL; starting it again in 0\.2 s\.")
        assert "hello" in (await say(mesh, "hello again")).lower()
        await mesh.until(r"Every stage is ready again\.")
        assert {name: mesh.children()[name].pid for name in replicas_of("echo")} == stages
        assert mesh.children().keys() >= relays_of("echo")
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_when_the_launcher_is_killed_all_die_and_the_next_run_tidies_up(tmp_path: Path) -> None:
    async with up(tmp_path) as mesh:
        await mesh.ready()
        children = mesh.children()
        arenas = arenas_of(children["echo-split-0"])
        await mesh.stop(signal.SIGKILL)
    assert await gone(list(children.values()))
    (left,) = runs_in(tmp_path)
    async with up(tmp_path) as mesh:
        await mesh.until(r"  echo-split-0 +starting")
        assert not left.exists()
        assert not any(folder.exists() for folder in arenas)
        assert await mesh.stop(signal.SIGINT) == 0


async def test_replicas_colocation_and_several_coordinators_make_a_mesh_that_serves(tmp_path: Path) -> None:
    options = ["--replicas", "upper=2", "--colocate", "join,say", "--coordinators", "2"]
    async with up(tmp_path, *options) as mesh:
        await mesh.ready()
        assert mesh.children().keys() >= {"echo-upper-0", "echo-upper-1", "coordinator-0", "coordinator-1"}
        for text in ("one", "two", "three"):
            assert text in (await say(mesh, text)).lower()
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_a_port_in_use_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = await anyio.run_process(
            [sys.executable, "-m", "omni_cli", "up", "--pipeline", "echo", "--port", str(port)], check=False
        )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == (
        f"Port {port} on 127.0.0.1 is in use by another program. Give another one with --port.\n"
    )
