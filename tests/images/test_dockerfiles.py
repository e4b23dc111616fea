"""The files that the images are built from: one for each service, without a complaint of hadolint's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("services/*/Dockerfile"))


def test_every_service_has_one() -> None:
    services = {path.parent.name for path in ROOT.glob("services/*/pyproject.toml")}
    assert {path.parent.name for path in FILES} == services


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--config", ROOT / ".hadolint.yaml", file], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parent.name)
def test_the_base_is_an_argument_and_the_user_is_nobody(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert "ARG BASE_IMAGE=python:3.11-slim" in lines
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${BASE_IMAGE}"}
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parent.name)
def test_steps_that_all_share_are_the_same(file: Path) -> None:
    """Up to the stubs our code is built alike, so that it is built once; one file's change is all files' change."""
    assert _shared(file) == _shared(FILES[0])


def _shared(file: Path) -> str:
    begun = file.read_text().partition(" AS code\n")[2]
    return begun.partition("./libs/omni_common\n")[0]
