"""The files that the images are built from: one for each service, without a complaint of hadolint's or trivy's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.chart.tools import NoTools, trivy

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("services/*/Dockerfile"))

MEANT = {
    "DS026": "no HEALTHCHECK: the kubelet heeds none, it probes by itself; the image of the command serves nothing",
}


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


def test_trivy_finds_nothing_that_is_not_meant(tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file.parent.name).mkdir()
        shutil.copy(file, tmp_path / file.parent.name)
    found = _trivy(tmp_path)
    looked = {target: one["MisconfSummary"]["Successes"] for target, one in found.items()}
    assert looked.keys() == {f"{file.parent.name}/Dockerfile" for file in FILES}
    assert min(looked.values()) > 20
    told = [one for result in found.values() for one in result.get("Misconfigurations", ())]
    assert {one["ID"] for one in told} >= MEANT.keys(), "an exemption that nothing needs any more"
    assert sorted({f"{one['ID']} {one['Message']}" for one in told if one["ID"] not in MEANT}) == []


def test_trivy_would_find_what_is_wrong(tmp_path: Path) -> None:
    wrong = FILES[0].read_text().replace("USER 10001:10001\n", "USER root\n")
    (tmp_path / "Dockerfile").write_text(wrong)
    (result,) = _trivy(tmp_path).values()
    assert {one["ID"] for one in result["Misconfigurations"]} == {"DS002", *MEANT}


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


def _trivy(folder: Path) -> Mapping[str, Any]:
    """Its report on the files in the folder, by their paths in it."""
    try:
        program = trivy()
    except NoTools as reason:
        pytest.skip(f"TRIVY IS NOT HERE: {reason}")
    options = ["--skip-check-update", "--quiet", "--format", "json", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [program, "config", *options, str(folder)], capture_output=True, text=True, timeout=100, check=True
    )
    return {one["Target"]: one for one in json.loads(done.stdout)["Results"]}


def _shared(file: Path) -> str:
    begun = file.read_text().partition(" AS code\n")[2]
    return begun.partition("./libs/omni_common\n")[0]
