"""What the pipeline says of itself, read from the folder of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omni_common.request import Task
from omni_stage.models import load_pipeline_config
from omni_stage.models.whisper.config import CHECKPOINT, PIPELINE, configure

LANGUAGES = ["<|en|>", "<|zh|>", "<|haw|>", "<|yue|>"]


def folder_with(folder: Path, tokens: list[str], *, as_text: bool = False) -> Path:
    """A folder that looks like one of weights, as far as the graph is concerned."""
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    if as_text:
        (folder / "vocabulary.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    else:
        (folder / "vocabulary.json").write_text(json.dumps(tokens), "utf-8")
    return folder


def vocabulary(size: int) -> list[str]:
    """Line separators of Unicode among them, which no line of a file ends at."""
    special = ["<|endoftext|>", "<|startoftranscript|>", *LANGUAGES, "<|translate|>", "<|0.00|>"]
    return [*special, *(f"w\u2028{n}" for n in range(size - len(special)))]


def test_the_packaged_weights_know_english_and_no_translation(weights: Path) -> None:
    pipeline = load_pipeline_config("whisper", weights)

    assert pipeline.languages == ("en",)
    assert pipeline.tasks == {Task.TRANSCRIPTION}
    assert not list(CHECKPOINT.missing(weights))


@pytest.mark.parametrize("as_text", [False, True], ids=["json", "text"])
def test_multilingual_weights_know_their_languages_and_translate(tmp_path: Path, as_text: bool) -> None:
    pipeline = configure(folder_with(tmp_path, vocabulary(51_865), as_text=as_text))

    assert pipeline.languages == ("en", "zh", "haw", "yue")
    assert pipeline.tasks == {Task.TRANSCRIPTION, Task.TRANSLATION}
    assert pipeline.stages == PIPELINE.stages


def test_english_weights_are_told_by_their_vocabulary(tmp_path: Path) -> None:
    assert configure(folder_with(tmp_path, vocabulary(51_864))).languages == ("en",)


def test_a_folder_of_something_else_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no Whisper model of CTranslate2: .*model.bin.* is missing"):
        configure(tmp_path)
    with pytest.raises(ValueError, match="no token that starts a transcript"):
        configure(folder_with(tmp_path, ["<s>", "</s>"]))
