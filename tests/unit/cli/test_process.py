"""The process of a command: whatever surrounds it, it ends with a sentence and no traceback."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

OMNI = shlex.join([sys.executable, "-m", "omni_cli"])
FULL = "Cannot write to standard output: No space left on device.\n"


def shell(script: str, **environment: str) -> tuple[int, str]:
    """The exit code, and what was written to standard error. `omni` is the command."""
    done = subprocess.run(
        ["bash", "-c", script.replace("omni", OMNI, 1)],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        pytest.param("omni models | true; exit ${PIPESTATUS[0]}", 141, "", id="what a command prints, closed"),
        pytest.param("omni models > /dev/full", 1, FULL, id="what a command prints, full"),
        pytest.param("omni --help | true; exit ${PIPESTATUS[0]}", 141, "", id="help, closed"),
        pytest.param("omni --help > /dev/full", 1, FULL, id="help, full"),
    ],
)
def test_an_output_that_takes_no_more_ends_the_command(script: str, code: int, told: str) -> None:
    assert shell(script) == (code, told)


@pytest.mark.parametrize(
    ("limit", "command", "needed"),
    [(16, "models", 64), (32, "models", 64), (100, "up --pipeline echo", 256)],
)
def test_too_few_descriptors_are_told(limit: int, command: str, needed: int) -> None:
    told = f"A process may open {limit} files here, and this needs {needed}. Allow more, such as by `ulimit -n 1024`.\n"
    assert shell(f"ulimit -n {limit}; omni {command}") == (1, told)


def test_a_limit_that_may_be_raised_is_raised() -> None:
    assert shell("ulimit -Sn 32; omni models > /dev/null") == (0, "")


@pytest.mark.parametrize("content", ["a: [b", "[1, 2]", "hello", "contexts: 5", "\udcff\udc92"])
@pytest.mark.parametrize("command", ["doctor", "top --once --release x"])
def test_a_kubeconfig_that_is_none_is_told(tmp_path: Path, command: str, content: str) -> None:
    file = tmp_path / "config"
    file.write_bytes(content.encode(errors="surrogateescape"))
    told = f"No cluster to ask: {file} holds no kubeconfig.\n"
    assert shell(f"omni {command} --kubeconfig {file}") == (2, told)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OMNI_CA_FILE": "/nofile"}, "Cannot read /nofile: No such file or directory.\n"),
        ({"OMNI_URL": "foo"}, "foo is no URL; one is http://127.0.0.1:8000/v1.\n"),
        (
            {"OMNI_URL": "http://127.0.0.1:1/v1"},
            "No mesh answers at http://127.0.0.1:1/v1. Start one with `omni up`.\n",
        ),
    ],
)
def test_models_that_cannot_be_asked_for_are_a_failure(environment: dict[str, str], told: str) -> None:
    assert shell("omni models > /dev/null", **environment) == (1, told)


def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    with subprocess.Popen(
        [sys.executable, "-m", "omni_cli", "up"],
        env={"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, told) == (130, "")
