"""Helm of both majors for the tests of the chart; each render is made once a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.chart.documents import Render
from tests.chart.helm import NEWEST, RELEASE, Helm
from tests.chart.tools import MAJORS, NoTools, tools_of
from tests.chart.topologies import TOPOLOGIES

Renderer = Callable[..., Render]


@pytest.fixture(scope="session")
def helms(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Helm]:
    """By their majors."""
    try:
        for major in MAJORS:
            tools_of(major)
    except NoTools as reason:
        pytest.skip(f"THE CHART IS NOT TESTED HERE: {reason}")
    return {major: Helm(major, tmp_path_factory.mktemp(f"helm{major}")) for major in MAJORS}


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"helm{major}")
def helm(request: pytest.FixtureRequest, helms: dict[int, Helm]) -> Helm:
    """Each of them in turn."""
    return helms[request.param]


@pytest.fixture(scope="session")
def render(helms: dict[int, Helm]) -> Renderer:
    """Documents of the chart with these values over those files of the chart, by the newest helm."""
    made: dict[str, Render] = {}

    def documents(
        values: dict[str, object] | None = None,
        *,
        files: Sequence[str] = (),
        release: str = RELEASE,
        kube_version: str = NEWEST,
        api_versions: Sequence[str] = (),
    ) -> Render:
        key = json.dumps([values, list(files), release, kube_version, list(api_versions)], sort_keys=True)
        if key not in made:
            made[key] = helms[max(helms)].render(
                values=values, files=files, release=release, kube_version=kube_version, api_versions=api_versions
            )
        return made[key]

    return documents


@pytest.fixture(scope="session", params=TOPOLOGIES, ids=lambda topology: topology)
def topology(request: pytest.FixtureRequest) -> str:
    """Each documented topology, by name."""
    return str(request.param)


@pytest.fixture(scope="session")
def rendered(topology: str, render: Renderer) -> Render:
    """The render of a documented topology."""
    return render(**TOPOLOGIES[topology].arguments())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
