"""Which folder is a voice, and what the pipeline is with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.stage.piper.conftest import VoiceMaker

from omni_common.request import Modality, Task
from omni_stage.models import load_pipeline_config
from omni_stage.models.piper.components.voice import load_voice


def test_a_voice_without_speakers_is_named_by_its_file(joe: Path) -> None:
    pipeline = load_pipeline_config("piper", joe)

    assert (pipeline.voices, pipeline.default_voice, pipeline.languages) == (
        ("en_US-joe-medium",),
        "en_US-joe-medium",
        ("en",),
    )
    assert pipeline.tasks == {Task.SPEECH}
    assert pipeline.terminals(frozenset({Modality.AUDIO})) == {"synthesise"}


def test_speakers_are_voices_in_the_order_of_their_numbers(voice_like_joe: VoiceMaker) -> None:
    folder = voice_like_joe({"speaker_id_map": {"zoe": 0, "adam": 1}, "language": {"family": "de"}})
    pipeline = load_pipeline_config("piper", folder)

    assert (pipeline.voices, pipeline.default_voice) == (("zoe", "adam"), "zoe")
    assert pipeline.languages == ("de",)
    assert load_voice(folder).speaker("adam") == 1


def test_a_voice_that_does_not_say_its_language_has_that_of_its_phonemes(voice_like_joe: VoiceMaker) -> None:
    assert load_voice(voice_like_joe({"language": None, "espeak": {"voice": "pt-br"}})).language == "pt"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"phoneme_type": "text"}, "phoneme_type: Input should be 'espeak'", id="other phonemes"),
        pytest.param({"audio": {}}, r"audio.sample_rate: Field required", id="no rate"),
        pytest.param({"espeak": {"voice": "--path=/"}}, r"espeak.voice: String should match", id="an option as voice"),
    ],
)
def test_a_description_that_cannot_be_used_says_where(
    voice_like_joe: VoiceMaker, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=rf"voice.onnx.json does not describe a Piper voice: {why}"):
        load_pipeline_config("piper", voice_like_joe(changes))


def test_a_folder_with_no_voice_or_two_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        load_pipeline_config("piper", tmp_path)
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"there is a.onnx, b.onnx"):
        load_pipeline_config("piper", tmp_path)


def test_a_model_without_its_description_is_no_voice(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match=r"a.onnx needs its description a.onnx.json beside it"):
        load_pipeline_config("piper", tmp_path)
