"""`omni verify` and `omni plan` beside a mesh of real models: what `helm test` runs after an install without values."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from omni_cli.checkpoint import make_tiny_checkpoint
from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Wishes
from omni_cli.serving import choose

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PIPELINES = ("qwen3-omni", "piper", "whisper")
HEARD = r"first audio \d+\.\d\d s, \d+\.\d\d s of audio, RTF \d+\.\d\d, -\d+ dBFS"
LINES = [
    r"piper speech: ok; " + HEARD,
    r"qwen3-omni chat: ok; first text \d+\.\d\d s, " + HEARD,
    r"qwen3-omni speech: ok; " + HEARD,
    r"whisper transcription: ok; first text \d+\.\d\d s, 8 words heard, 0 of 8 wrong",
]


async def omni(*arguments: str) -> tuple[int, list[str], str]:
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [sys.executable, "-m", "omni_cli", *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONUTF8": "1"},
            check=False,
            stderr=subprocess.PIPE,
        )
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


async def test_tiny_random_weights_and_real_voices_pass_and_can_be_planned_for(tmp_path: Path) -> None:
    make_tiny_checkpoint("qwen3-omni", tmp_path / "tiny")
    served = choose(PIPELINES, [f"qwen3-omni={tmp_path / 'tiny'}"])
    said: list[str] = []
    wishes = Wishes(served, port=free_port("127.0.0.1"), device="cpu")
    async with open_mesh(wishes, say=said.append, verbose=False) as mesh:
        await mesh.until_ready()
        code, lines, error = await omni("verify", mesh.url)
        assert (code, error) == (0, ""), lines
        assert len(lines) == len(LINES)
        for pattern, line in zip(LINES, lines, strict=True):
            assert re.fullmatch(pattern, line), line
        pages = [f"http://{p.metrics}" for p in mesh.plan.processes if p.pipeline in {"", "qwen3-omni"}]
        code, lines, error = await omni("plan", "--requests-per-second", "1", "--pipeline", "qwen3-omni", *pages)
    assert (code, error) == (0, "")
    assert lines[0].startswith("qwen3-omni: 1 requests/s, ")
    groups = [line.split(":")[0].strip() for line in lines if " replica" in line and line.startswith("  ")]
    assert groups[:2] == ["thinker", "talker"]
