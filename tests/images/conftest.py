"""The images as `make images` builds them, and the chart's pods made of them. FULL=1 adds torch and the command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from tests.chart.helm import Helm
from tests.chart.tools import MAJORS, NoTools, tools_of
from tests.images.build import FULL, TAG, build
from tests.images.podman import podman, unusable
from tests.images.release import Release, released

Images = Callable[[str], str]


@pytest.fixture(scope="session")
def images() -> Images:
    """The image here for a component's name, or for the image that a container of the chart asks for."""
    if why := unusable():
        pytest.skip(f"THE IMAGES ARE NOT TESTED HERE: {why}.")
    why = build()
    assert not why, why
    return lambda name: f"localhost/{name.partition(':')[0]}:{TAG}"


@pytest.fixture(scope="session")
def newest_helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    try:
        tools_of(max(MAJORS))
    except NoTools as why:
        pytest.skip(f"THE IMAGES ARE NOT TESTED AS THE CHART STARTS THEM: {why}")
    return Helm(max(MAJORS), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def release(images: Images, newest_helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The chart with a voice, all of its pods started."""
    values = {"pipelines": {"qwen3-omni": {"enabled": False}, "piper": {"enabled": True}}}
    with released(
        newest_helm.render(values=values), _name("voice"), tmp_path_factory.mktemp("node"), images
    ) as release:
        yield release


@pytest.fixture(scope="session")
def whole_release(images: Images, newest_helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The chart as it is without values: a tiny Qwen3-Omni. Its stages need torch."""
    if not FULL:
        pytest.skip("FULL=1 tests the images with torch, too: make test-images FULL=1")
    with released(newest_helm.render(), _name("whole"), tmp_path_factory.mktemp("node"), images) as release:
        yield release


@pytest.fixture
def container(images: Images) -> Iterator[Callable[..., str]]:
    """Starts one by itself, with these words of podman's before the image, and says its name."""
    started: list[str] = []

    def start(component: str, *words: str) -> str:
        name = f"{_name('alone')}-{len(started)}"
        started.append(name)
        podman("run", "--detach", "--name", name, "--read-only", "--cap-drop=ALL", *words, images(f"omni-{component}"))
        return name

    yield start
    for name in started:
        podman("rm", "--force", "--time", "0", name)


def _name(what: str) -> str:
    return f"omni-test-{what}-{os.getpid()}"
