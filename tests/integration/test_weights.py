"""The step that puts weights into a volume, as pods run it: real processes, and a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.lab.hub import COMMIT, MODEL, Hub, serve_hub
from tests.outsider import install

from omni_stage.models import load_checkpoint_config
from omni_stage.weights.packaged import pinned

FISH = """
from omni_stage.checkpoint import Checkpoint
from omni_stage.models.echo.config import PIPELINE as ECHO

PIPELINE = ECHO.model_copy(update={"name": "fish"})
CHECKPOINT = Checkpoint(marks=("fish.json", "*.safetensors"), files=("*.json", "*.safetensors"), tiny="fish.tiny")
"""
# Says how often it was made.
TINY = """
import os

def make_tiny(folder):
    with (folder / "made").open("a") as made:
        made.write(f"{os.getpid()}\\n")
    (folder / "fish.json").write_text("{}")
    (folder / "a.safetensors").write_bytes(b"scales")
"""
FILES = {"fish.json": b"{}", "a.safetensors": b"scales" * 200_000, "deep/b.json": b"[]", "code.py": b"evil()"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path / "site", "fish", {"config.py": FISH, "tiny.py": TINY})
    return tmp_path / "site"


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    # Popen waits when its block ends.
    while Step.runs:
        with Step.runs.pop() as run:
            run.kill()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(FILES) as hub:
        yield hub


class Step:
    """One run of the step; those that a test leaves are ended with it."""

    runs: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, site: Path, folder: Path, endpoint: str = "http://127.0.0.1:9", **settings: str) -> None:
        asked = {"family": "fish", "source": "tiny", "folder": str(folder), **settings}
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(site.parent / "home"),
            "PYTHONPATH": str(site),
            "HF_ENDPOINT": endpoint,
            **{f"OMNI_WEIGHTS_{name.upper()}": value for name, value in asked.items()},
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "omni_stage.weights"], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.runs.append(self.process)

    def ended(self, within: float = 60) -> tuple[int, list[dict[str, object]]]:
        """Its exit code and its log."""
        _, said = self.process.communicate(timeout=within)
        return self.process.returncode, [json.loads(line) for line in said.splitlines()]

    def refused(self) -> str:
        """Its last words; it ended with 1."""
        code, lines = self.ended()
        assert code == 1, lines
        return str(lines[-1]["msg"])

    def until_said(self, message: str) -> None:
        """Until the log has the line. The test's own timeout is the bound."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if json.loads(line)["msg"] == message:
                return
        raise AssertionError(f"it ended without saying: {message}")


def digest(folder: Path) -> dict[str, str]:
    """What a stage would read."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    )
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_pods_that_start_together_fill_their_volume_once(site: Path, tmp_path: Path) -> None:
    pods = [Step(site, tmp_path / "volume") for _ in range(4)]
    assert [pod.ended()[0] for pod in pods] == [0] * 4
    assert len((tmp_path / "volume" / "made").read_text().splitlines()) == 1


def test_the_tiny_model_is_the_same_to_the_byte_in_every_pod(site: Path, tmp_path: Path) -> None:
    pods = [Step(site, tmp_path / name, family="qwen3-omni") for name in ("one", "other")]
    assert [pod.ended(within=100)[0] for pod in pods] == [0, 0]
    made = digest(tmp_path / "one")
    assert made == digest(tmp_path / "other")
    assert "model.safetensors" in made


def test_a_volume_of_other_weights_is_left_alone(site: Path, tmp_path: Path) -> None:
    assert Step(site, tmp_path / "volume").ended()[0] == 0
    before = digest(tmp_path / "volume")
    refused = Step(site, tmp_path / "volume", source="hub", hub_id=MODEL).refused()
    assert "holds other weights, fish tiny, and fish hub somebody/fish main are wanted" in refused
    assert digest(tmp_path / "volume") == before


def test_files_that_somebody_else_put_there_are_left_alone(site: Path, tmp_path: Path) -> None:
    (tmp_path / "fish.json").write_text("mine")
    assert "is not empty: it holds fish.json" in Step(site, tmp_path).refused()
    assert (tmp_path / "fish.json").read_text() == "mine"


def test_a_volume_whose_first_pod_ended_before_its_first_file_is_filled(site: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / ".omni-weights.lock").touch()
    (volume / ".omni-weights.json.new").write_text("half a rec")
    assert Step(site, volume).ended()[0] == 0
    assert not (volume / ".omni-weights.json.new").exists()


def test_a_filled_volume_is_only_looked_at(site: Path, tmp_path: Path) -> None:
    assert f"{tmp_path} does not hold the weights of 'fish'" in Step(site, tmp_path, source="volume").refused()
    for name in ("fish.json", "a.safetensors"):
        (tmp_path / name).write_text("mine")
    assert Step(site, tmp_path, source="volume").ended()[0] == 0


def test_what_the_hub_has_is_fetched_but_for_files_that_are_no_weights(site: Path, tmp_path: Path, hub: Hub) -> None:
    code, lines = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL).ended()
    assert code == 0, lines
    wanted = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items() if name != "code.py"}
    assert digest(tmp_path / "volume") == wanted
    (begun,) = (line for line in lines if line["msg"] == "fetching")
    assert begun["commit"] == COMMIT
    assert [line["percent"] for line in lines if line["msg"] == "fetched"][-1] == 100.0


def test_a_second_pod_fetches_nothing_and_asks_nobody(site: Path, tmp_path: Path, hub: Hub) -> None:
    assert Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL).ended()[0] == 0
    code, lines = Step(site, tmp_path / "volume", source="hub", hub_id=MODEL).ended()
    assert (code, [line["msg"] for line in lines]) == (0, ["the weights are there"])


def test_a_download_says_how_far_it_is_and_is_gone_on_with_after_its_pod_was_killed(
    site: Path, tmp_path: Path, hub: Hub
) -> None:
    hub.open_to_all.clear()
    pod = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL, progress="50ms")
    pod.until_said("fetched")
    waiting = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL)
    waiting.until_said("another pod fills the volume; waiting")
    pod.process.kill()
    pod.process.communicate()
    hub.open_to_all.set()
    assert waiting.ended()[0] == 0
    assert digest(tmp_path / "volume")["a.safetensors"] == hashlib.sha256(FILES["a.safetensors"]).hexdigest()


def test_bytes_that_came_are_not_fetched_again(site: Path, tmp_path: Path, hub: Hub) -> None:
    hub.files["large.safetensors"] = bytes(24 << 20)  # the client writes 10 MiB at a time
    hub.breaks.add("large.safetensors")
    code, lines = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL).ended()
    assert code == 0, lines
    first, then = (start for name, start in hub.sent if name == "large.safetensors")
    assert (first, then) == (0, 10 << 20)


def test_a_download_has_a_deadline(site: Path, tmp_path: Path, hub: Hub) -> None:
    hub.open_to_all.clear()
    late = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL, deadline="2s", progress="200ms")
    assert late.refused() == f"{MODEL} was not fetched within the deadline; what there is of it is kept."


def test_a_pod_does_not_wait_for_another_for_ever(site: Path, tmp_path: Path, hub: Hub) -> None:
    hub.open_to_all.clear()
    first = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL, progress="50ms")
    first.until_said("fetched")
    late = Step(site, tmp_path / "volume", hub.url, source="hub", hub_id=MODEL, deadline="500ms")
    assert late.refused() == f"Another pod has been filling {tmp_path / 'volume'} until the deadline."
    hub.open_to_all.set()
    assert first.ended()[0] == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"source": "hub", "hub_id": "somebody/else"}, "The hub has no model somebody/else, or shows it to nobody"),
        ({"source": "hub", "hub_id": MODEL, "revision": "v9"}, f"{MODEL} has no such revision."),
        ({"source": "hub"}, "HUB_ID names no model: the source hub needs one, as OWNER/NAME."),
        ({"source": "packaged"}, "There are no weights of 'fish' whose source is packaged."),
        ({"family": "bird"}, "There is no pipeline 'bird'. There are echo, fish, piper, qwen3-omni, whisper."),
        ({"family": "piper"}, "No tiny model can be made for 'piper'; it can for fish, qwen3-omni."),
        ({"source": "moon"}, "OMNI_WEIGHTS_SOURCE is refused"),
        ({"hub": "x"}, "OMNI_WEIGHTS_HUB is not a setting of WeightsSettings"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(
    site: Path, tmp_path: Path, hub: Hub, settings: dict[str, str], sentence: str
) -> None:
    assert sentence in Step(site, tmp_path / "volume", hub.url, **settings).refused()


def test_a_hub_that_is_not_reached_is_no_reason_to_take_what_is_there(site: Path, tmp_path: Path) -> None:
    assert f"{MODEL} cannot be fetched: " in Step(site, tmp_path / "volume", source="hub", hub_id=MODEL).refused()


def test_installed_weights_are_copied(site: Path, tmp_path: Path) -> None:
    assert Step(site, tmp_path / "volume", family="piper", source="packaged").ended()[0] == 0
    checkpoint = load_checkpoint_config("piper")
    assert checkpoint is not None
    assert not [*checkpoint.missing(tmp_path / "volume")]


@pytest.mark.parametrize("family", ["piper", "whisper"])
def test_every_packaged_model_is_pinned_by_its_bytes(family: str) -> None:
    checkpoint = load_checkpoint_config(family)
    assert checkpoint is not None
    assert checkpoint.packaged is not None
    assert "--hash=sha256:" in pinned(checkpoint.packaged.distribution)
