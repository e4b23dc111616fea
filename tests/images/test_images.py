"""Each image by itself: what it is, what it holds, and that it starts with nothing writable and as nobody."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from tests.images.conftest import Images
from tests.images.podman import ROOT, inspect, podman, run

pytestmark = pytest.mark.timeout(1800)  # whoever comes first waits for the builds

SERVICES = ("gateway", "coordinator", "relay", "stage")
SMALL = ("gateway", "coordinator", "relay")
LIMIT = 350_000_000
HOW_TO_RUN = ["--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"]


@pytest.mark.parametrize("service", SMALL)
def test_what_has_no_model_is_small(images: Images, service: str) -> None:
    size = inspect("image", images(f"omni-{service}"))["Size"]
    print(f"omni-{service}: {size / 1e6:.0f} MB")
    assert size <= LIMIT


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_says_what_it_is_and_is_nobody(images: Images, service: str) -> None:
    config = inspect("image", images(f"omni-{service}"))["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "python", "-m", f"omni_{service}"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == f"omni-{service}"
    assert labels["description"]
    assert labels["version"] == "tested"
    assert labels["revision"]
    assert labels["licenses"].startswith("Apache-2.0")


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_no_weights_no_cache_and_no_sources_of_ours(images: Images, service: str) -> None:
    looked_for = "-name *.onnx -o -name *.safetensors -o -name *.bin -o -path /src/* -o -path /root/.cache/*"
    find = f"find / -xdev -type f \\( {looked_for} \\) -size +100k -print 2>/dev/null"
    script = f"set -f; {find}; cat /usr/share/doc/omni/NOTICE"
    said = podman("run", "--rm", *HOW_TO_RUN, "--user=0", "--entrypoint=sh", images(f"omni-{service}"), "-c", script)
    assert said.startswith("omni is licensed"), said


@pytest.mark.parametrize("service", SERVICES)
def test_every_version_is_the_locks(images: Images, service: str) -> None:
    listed = podman("run", "--rm", *HOW_TO_RUN, "--entrypoint=pip", images(f"omni-{service}"), "list", "--format=json")
    locks = [ROOT / "constraints.txt", ROOT / "services" / "stage" / "constraints-cuda.txt"]
    lines = [line for lock in locks for line in lock.read_text().splitlines() if "==" in line]
    locked = {_plain(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    ours = {"omni-common", f"omni-{service}"}
    of_the_base = {"pip", "setuptools", "wheel"}
    for package in json.loads(listed):
        name = _plain(package["name"])
        if name not in ours | of_the_base:
            assert package["version"].removesuffix("+cpu") == locked[name], name


@pytest.mark.parametrize("service", SERVICES)
def test_without_settings_a_service_ends_with_a_sentence(images: Images, service: str) -> None:
    done = run("run", "--rm", *HOW_TO_RUN, images(f"omni-{service}"))
    (line,) = (json.loads(line) for line in done.stderr.splitlines() if line.startswith("{"))
    assert done.returncode == 1
    assert "is refused: Field required." in line["msg"] or "is not set" in line["msg"], line


def test_a_signal_that_comes_before_a_service_listens_ends_it(container: Callable[..., str]) -> None:
    name = container("gateway", "--env=OMNI_GATEWAY_COORDINATORS=nowhere:1")
    podman("kill", "--signal=TERM", name)
    code = podman("wait", name, seconds=20)
    assert code in {"0", "143"}  # when it listened already, and when it did not


def test_a_voice_speaks_without_a_sound_card_or_a_writable_root(images: Images) -> None:
    said = podman(
        "run",
        "--rm",
        *HOW_TO_RUN,
        "--entrypoint=espeak-ng",
        images("omni-stage"),
        "-q",
        "--ipa",
        "-v",
        "en-us",
        "Hello",
    )
    assert "ə" in said


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def test_the_builds_of_all_images_are_one_command() -> None:
    said = subprocess.run(["make", "-n", "images"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert ".ci/images.sh" in said.stdout
