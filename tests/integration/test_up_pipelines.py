"""`omni up` with several pipelines behind one endpoint: echo, and a family of somebody else's distribution."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
import psutil
import pytest
from tests.integration.up_process import STAGES, relays_of, replicas_of, say, up
from tests.outsider import install

from omni_cli.launcher.child import kernel_name

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

# It joins by its entry point, and starts a thread when its code is imported, as some libraries do.
CONFIG = """
from omni_stage.models.echo.config import PIPELINE as ECHO

PIPELINE = ECHO.model_copy(update={"name": "parrot"})
"""
CODE = """
import threading

from omni_stage.models.echo.stages import FAMILY

threading.Thread(target=threading.Event().wait, name="nap", daemon=True).start()
"""


@pytest.fixture
def parrot(tmp_path: Path) -> Path:
    """A folder to import from, with an installed distribution that has the family."""
    install(tmp_path / "site", "parrot", {"config.py": CONFIG, "stages.py": CODE})
    return tmp_path / "site"


async def test_two_pipelines_with_the_same_stages_are_served_by_their_names(tmp_path: Path, parrot: Path) -> None:
    options = ["--pipeline", "parrot", "--replicas", "parrot/upper=2"]
    async with up(tmp_path, *options, python_path=str(parrot)) as mesh:
        await mesh.ready()
        assert [(await mesh.line()), (await mesh.line())] == ["  echo: chat", "  parrot: chat"]
        children = mesh.children()
        assert children.keys() == (
            replicas_of("echo")
            | replicas_of("parrot")
            | relays_of("echo")
            | relays_of("parrot")
            | {kernel_name("relay-parrot-front-1"), "parrot-upper-1", "coordinator-0", "gateway-0"}
            | {"fork-echo", "fork-parrot", "fork-relay"}
        )
        # A process is forked from a server without threads, or threads that it takes for alive would be gone in it.
        assert children["fork-parrot"].num_threads() == 1
        assert {children[f"parrot-{stage}-0"].parent() for stage in STAGES} == {children["fork-parrot"]}
        async with mesh.client() as client:
            assert sorted([model.id async for model in client.models.list()]) == ["echo", "parrot"]
        assert "hello" in (await say(mesh, "hello echo")).lower()
        assert "hello" in (await say(mesh, "hello parrot", model="parrot")).lower()
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_a_pipeline_that_cannot_start_ends_the_mesh_with_its_last_words(tmp_path: Path, parrot: Path) -> None:
    (parrot / "parrot" / "stages.py").write_text('raise ImportError("the parrot is no more")\n')
    async with up(tmp_path, "--pipeline", "parrot", python_path=str(parrot)) as mesh:
        said, code_of_end = await mesh.to_the_end()
    assert code_of_end == 1
    assert not [line for line in said if line.startswith("omni is ready")]
    assert any("the parrot is no more" in line for line in said[-3:])


async def test_speech_and_hearing_run_beside_echo_without_torch_in_any_process(tmp_path: Path) -> None:
    async with up(tmp_path, "--pipeline", "piper", "--pipeline", "whisper") as mesh:
        await mesh.ready()
        assert [(await mesh.line()) for _ in range(3)] == [
            "  echo: chat",
            "  piper: speech",
            "  whisper: transcription",
        ]
        servers = {name: child for name, child in mesh.children().items() if name.startswith("fork-")}
        assert libraries_of(servers.pop("fork-relay")) == set()
        mapped = {name: libraries_of(server) for name, server in servers.items()}
        with anyio.fail_after(20):
            command = ["models", "--url", f"http://127.0.0.1:{mesh.port}/v1"]
            listed = await anyio.run_process([sys.executable, "-m", "omni_cli", *command])
        assert await mesh.stop(signal.SIGTERM) == 0
    assert mapped == {"fork-echo": set(), "fork-piper": {"onnxruntime"}, "fork-whisper": {"ctranslate2", "onnxruntime"}}
    served = listed.stdout.decode().partition("Served at ")[2].splitlines()[1:]
    assert [line.split() for line in served] == [
        ["echo", "chat;", "voices", "low,", "high"],
        ["piper", "speech;", "voices", "en_US-joe-medium"],
        ["whisper", "transcription"],
    ]


def libraries_of(server: psutil.Process) -> set[str]:
    """Those that compute, in any of the processes that were forked from it."""
    maps = [mapped.path for child in server.children() for mapped in child.memory_maps()]
    return {name for name in ("libtorch", "onnxruntime", "ctranslate2") if any(name in path for path in maps)}


async def test_every_line_of_a_verbose_mesh_names_its_process(tmp_path: Path) -> None:
    async with up(tmp_path, "--verbose") as mesh:
        await mesh.until(r'echo-say-0 \| \{.*"msg": ')
        await mesh.ready()
        assert await mesh.stop(signal.SIGTERM) == 0
        said, _ = await mesh.to_the_end()
    writers = {line.partition(" | ")[0] for line in mesh.said + said if " | {" in line}
    relays = {"relay-echo-front-0", "relay-echo-back-0"}
    assert writers == replicas_of("echo") | relays | {"coordinator-0", "gateway-0"}
    assert not [line for line in mesh.said + said if line.startswith("{")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--pipeline", "echo", "--pipeline", "echo"], "A pipeline can be given once"),
        (["--pipeline", "nobody"], "There is no pipeline 'nobody'. There are echo, "),
        (["--pipeline", "echo", "--model", "."], "Pipeline 'echo' computes without weights and takes no --model."),
        (["--pipeline", "echo", "--replicas", "sing=2"], "There is no stage 'sing'. Pipeline 'echo' has split, "),
        (
            ["--pipeline", "qwen3-omni"],
            "Pipeline 'qwen3-omni' needs weights.\nTo use your own: --model qwen3-omni=FOLDER or "
            "--model qwen3-omni=HUB-ID\nFor a tiny random model: omni models make-tiny qwen3-omni ",
        ),
        (
            ["--pipeline", "echo", "--pipeline", "qwen3-omni", "--model", "."],
            " does not hold the weights of 'qwen3-omni': there is no config.json and no *.safetensors.",
        ),
    ],
)
async def test_what_cannot_be_served_ends_the_command_with_a_sentence(
    options: list[str], sentence: str, tmp_path: Path
) -> None:
    with anyio.fail_after(20):
        done = await anyio.run_process([sys.executable, "-m", "omni_cli", "up", *options], check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert sentence in done.stderr.decode()
