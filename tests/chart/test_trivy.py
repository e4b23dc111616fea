"""What trivy's own checks of Kubernetes manifests say about the renders: nothing but what is meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.chart.conftest import Renderer
from tests.chart.helm import Helm
from tests.chart.tools import NoTools, trivy
from tests.chart.topologies import DOCUMENTED, TOPOLOGIES

MEANT = {
    "KSV011": "no CPU limits: a stage that is held back in the middle of a step makes its listeners wait",
}


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return trivy()
    except NoTools as reason:
        pytest.skip(f"TRIVY IS NOT HERE: {reason}")


@pytest.fixture(scope="module")
def found(program: Path, render: Renderer, helms: dict[int, Helm], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its report on the documented topologies, as JSON."""
    folder = tmp_path_factory.mktemp("renders")
    for name in DOCUMENTED:
        (folder / f"{name}.yaml").write_text(render(**TOPOLOGIES[name].arguments()).text)
    options = ["--skip-check-update", "--quiet", "--format", "json", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [program, "config", *options, str(folder)], capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout


def test_it_has_looked_at_all_of_them(found: str) -> None:
    looked = {one["Target"]: one["MisconfSummary"]["Successes"] for one in json.loads(found)["Results"]}
    assert looked.keys() == {f"{name}.yaml" for name in DOCUMENTED}
    assert min(looked.values()) > 50


def test_it_finds_nothing_that_is_not_meant(found: str) -> None:
    told = [one for result in json.loads(found)["Results"] for one in result.get("Misconfigurations", ())]
    assert {one["ID"] for one in told} >= MEANT.keys(), "an exemption that nothing needs any more"
    assert sorted({f"{one['ID']} {one['Message']}" for one in told if one["ID"] not in MEANT}) == []
