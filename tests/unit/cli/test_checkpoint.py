"""Which weights a pipeline gets: those of --model, those of an installed distribution, or a sentence about both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.outsider import install

from omni_cli.checkpoint import assign_models, find_checkpoint, find_checkpoints, make_tiny_checkpoint
from omni_cli.errors import CommandError
from omni_cli.serving import choose

# Families as they may be: `bird` has weights in a distribution, `fish` has none of its own but can make tiny ones.
BIRD = """
from omni_stage.checkpoint import Checkpoint, Packaged
from omni_stage.models.echo.config import PIPELINE as ECHO

PIPELINE = ECHO.model_copy(update={"name": "bird"})
CHECKPOINT = Checkpoint(marks=("*.song",), files=(), packaged=Packaged("bird-songs", "songs", "bird-voice"))

def configure(folder):
    (song,) = folder.glob("*.song")
    if not song.read_text():
        raise ValueError(f"{song.name} is empty.")
    return PIPELINE.model_copy(update={"voices": (song.stem,), "default_voice": song.stem})
"""
FISH = """
from omni_stage.checkpoint import Checkpoint
from omni_stage.models.echo.config import PIPELINE as ECHO

PIPELINE = ECHO.model_copy(update={"name": "fish"})
CHECKPOINT = Checkpoint(marks=("fish.json", "*.scales"), files=("*.json",), tiny="fish.tiny")
"""
TINY_FISH = """
def make_tiny(folder):
    (folder / "fish.json").write_text("{}")
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    install(site, "bird", {"config.py": BIRD})
    install(site, "fish", {"config.py": FISH, "tiny.py": TINY_FISH})
    monkeypatch.syspath_prepend(site)
    return site


@pytest.fixture
def songs(site: Path) -> Path:
    """The distribution with weights of `bird`."""
    (site / "bird_songs-1.dist-info").mkdir()
    (site / "bird_songs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: bird-songs\nVersion: 1\n")
    return folder_of(site / "songs", "lark.song")


def folder_of(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("weights")
    return folder.resolve()


def test_weights_of_an_installed_distribution_are_taken_when_none_are_named(songs: Path) -> None:
    assert find_checkpoints(["bird", "echo"], []) == {"bird": songs, "echo": None}


def test_named_weights_win_over_installed_ones(songs: Path, tmp_path: Path) -> None:
    mine = folder_of(tmp_path / "mine", "thrush.song")
    assert find_checkpoint("bird", str(mine)) == mine


def test_weights_are_for_the_pipeline_they_name_or_the_only_one_or_the_only_one_without(songs: Path) -> None:
    assert assign_models(["bird", "fish"], ["fish=a", "bird=b"]) == {"fish": "a", "bird": "b"}
    assert assign_models(["echo", "bird", "fish"], ["a"]) == {"fish": "a"}
    assert assign_models(["bird", "fish"], ["bird=b", "a"]) == {"bird": "b", "fish": "a"}


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert assign_models(["echo"], [f"{tmp_path}/a=b"]) == {"echo": f"{tmp_path}/a=b"}


def test_weights_for_a_pipeline_that_there_is_not_are_refused() -> None:
    with pytest.raises(CommandError, match=r"^There is no pipeline 'nope'\. There are .*echo, .*whisper\.$"):
        assign_models(["echo"], ["nope=/x"])


@pytest.mark.parametrize(
    ("served", "models", "sentence"),
    [
        (["bird", "fish"], ["a"], "Say which pipeline the weights are for: --model bird=a or --model fish=a."),
        (["fish"], ["a", "b"], "Say which pipeline the weights are for: --model fish=a."),
        (["fish"], ["fish=a", "b"], "Say which pipeline the weights are for: --model fish=b."),
        (["fish"], ["bird=a"], "--model bird=a: pipeline 'bird' is not served; fish would be."),
        (["fish"], ["fish=a", "fish=b"], "--model says twice where the weights of 'fish' are."),
    ],
)
def test_weights_that_could_be_for_any_or_for_none_are_refused(
    served: list[str], models: list[str], sentence: str
) -> None:
    with pytest.raises(CommandError, match=f"^{re.escape(sentence)}$"):
        assign_models(served, models)


def test_without_weights_the_ways_to_get_some_are_said() -> None:
    with pytest.raises(CommandError) as refused:
        find_checkpoint("bird", None)
    assert str(refused.value) == (
        "Pipeline 'bird' needs weights.\n"
        "To install some: pip install 'omni-stage[bird-voice]'\n"
        "To use your own: --model bird=FOLDER"
    )
    with pytest.raises(CommandError) as refused:
        find_checkpoint("fish", None)
    assert str(refused.value) == (
        "Pipeline 'fish' needs weights.\n"
        "To use your own: --model fish=FOLDER or --model fish=HUB-ID\n"
        "For a tiny random model: omni models make-tiny fish .omni/tiny-fish, then --model fish=.omni/tiny-fish"
    )


def test_a_folder_without_what_marks_the_weights_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    empty = folder_of(tmp_path / "empty")
    with pytest.raises(CommandError, match=r"weights of 'fish': there is no fish\.json and no \*\.scales\.$"):
        find_checkpoint("fish", str(empty))
    with pytest.raises(CommandError, match=r"there is no \*\.song\.$"):
        find_checkpoint("bird", str(empty))


@pytest.mark.parametrize(
    ("family", "model"), [("fish", "./a/b"), ("fish", "/a"), ("fish", "a"), ("bird", "owner/bird")]
)
def test_what_is_neither_a_folder_nor_can_be_a_hub_id_is_no_folder(family: str, model: str) -> None:
    with pytest.raises(CommandError, match=f"There is no folder {model}"):
        find_checkpoint(family, model)


def test_a_pipeline_is_what_its_weights_make_it(songs: Path) -> None:
    (served,) = choose(["bird"], [])
    assert (served.model, served.pipeline.voices) == (songs, ("lark",))


def test_weights_that_the_family_refuses_are_refused_with_its_sentence(songs: Path) -> None:
    (songs / "lark.song").write_text("")
    with pytest.raises(CommandError, match=r"'bird' cannot be served from .*songs: lark\.song is empty\."):
        choose(["bird"], [])


def test_a_tiny_model_is_made_where_the_family_can(tmp_path: Path) -> None:
    make_tiny_checkpoint("fish", tmp_path / "tiny")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["fish.json"]
    with pytest.raises(CommandError, match="is not empty"):
        make_tiny_checkpoint("fish", tmp_path / "tiny")
    with pytest.raises(CommandError, match=r"No tiny model can be made for 'bird'; it can for .*fish"):
        make_tiny_checkpoint("bird", tmp_path / "other")
