"""podman, as far as these tests need it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_CONF = ROOT / ".ci" / "containers.conf"
_SECONDS = 60


class Failed(Exception):
    """A command of podman's that ended with an error: what it wrote."""


def podman(*arguments: str | Path, seconds: float = _SECONDS) -> str:
    """What it writes to standard output. Raises Failed, and TimeoutExpired when it takes too long."""
    done = run(*arguments, seconds=seconds)
    if done.returncode:
        raise Failed(f"podman {' '.join(map(str, arguments))}: {(done.stderr + done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def run(*arguments: str | Path, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
    """The command, however it ends."""
    command = ["podman", *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def environment() -> dict[str, str]:
    """What podman is started with. Without systemd it needs settings of its own, as in the Makefile."""
    mine = dict(os.environ)
    if not Path("/run/systemd/system").exists():
        mine.setdefault("CONTAINERS_CONF", str(_CONF))
    return mine


def inspect(kind: str, name: str) -> dict[str, Any]:
    """What podman knows of a container, image, pod."""
    (found,) = (
        json.loads(podman(kind, "inspect", name)) if kind != "pod" else [json.loads(podman(kind, "inspect", name))]
    )
    return dict(found)


def unusable() -> str:
    """Why no container can be started here; empty when it can."""
    if os.geteuid() != 0:
        return "pods need root here, for volumes that belong to another user"
    if shutil.which("podman") is None:
        return "podman is not installed"
    done = run("info")
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""
