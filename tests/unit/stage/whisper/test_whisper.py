"""The whole line in one process: a file in, segments out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.stage.media_files import FOLDER, audio_file, wav_file
from tests.unit.stage.one_process import OneProcess, context, one_process
from tests.unit.stage.whisper.recordings import GREEDY, RATE, SAID, arriving, pcm, request, silence, spoken

from omni_common.errors import InvalidRequest
from omni_common.request import FinishReason, Media, Message, Modality, Role, Segment, Text
from omni_stage.models.whisper.payload_types import Passages, Window
from omni_stage.models.whisper.stages import FAMILY
from omni_stage.scheduler.contract import Chunk, Dropped, NewRequest
from omni_stage.testing.answers import Answers


@pytest.fixture(scope="module")
def whisper(weights: Path) -> Iterator[OneProcess]:
    with one_process(FAMILY, weights, dtype="auto") as line:
        yield line


def segments(whisper: OneProcess, file: bytes, **params: Any) -> list[Segment]:
    outputs = whisper.run(request(file, **params)).outputs["decode"]
    return [output for output in outputs if isinstance(output, Segment)]


def test_what_is_said_is_written_and_counted(whisper: OneProcess) -> None:
    outcome = whisper.run(request((FOLDER / "describe.wav").read_bytes()))

    (segment,) = outcome.outputs["decode"]
    assert isinstance(segment, Segment)
    assert (segment.text, segment.language, segment.words) == (SAID["describe"], "en", ())
    assert 0 <= segment.start < segment.end <= 2.346
    assert segment.avg_logprob > -1
    assert segment.no_speech_prob < 0.5
    result = outcome.results["decode"]
    assert result.finish_reason is FinishReason.STOP
    assert result.usage.prompt_audio_seconds == len(pcm("describe")) / RATE
    assert result.usage.completion_text_tokens == 8  # seven words and a full stop
    assert outcome.visited == ["preprocess", "transcribe", "decode"]


@pytest.mark.parametrize(("form", "codec"), [("mp3", "libmp3lame"), ("ipod", "aac"), ("ogg", "libopus")], ids=str)
def test_packed_speech_is_understood_as_well(whisper: OneProcess, form: str, codec: str) -> None:
    (segment,) = segments(whisper, audio_file(spoken("question"), RATE, form, codec))

    assert segment.text == SAID["question"]


def test_a_long_recording_is_written_in_order_with_its_own_times(whisper: OneProcess) -> None:
    order = ["describe", "greeting", "question", "greeting", "describe"]
    gaps = [31.0, 8.0, 33.0, 12.0, 2.0]
    file = wav_file(spoken(*(part for pair in zip(gaps, order, strict=True) for part in pair)), RATE)

    made = segments(whisper, file, sampling=GREEDY, word_times=True)

    assert "".join(segment.text for segment in made) == " ".join(SAID[name] for name in order)
    at = 0.0
    starts = []
    for gap, name in zip(gaps, order, strict=True):
        starts.append(at + gap)
        at += gap + len(pcm(name)) / RATE
    words = [word for segment in made for word in segment.words]
    assert [word.word for word in words] == [word for name in order for word in SAID[name].split()]
    assert [word.start for word in words] == sorted(word.start for word in words)
    firsts = [word.start for word in words if word.word in {"Please", "Good", "What"}]
    assert firsts == pytest.approx(starts, abs=0.5)
    assert all(segment.start <= segment.end for segment in made)


def test_the_same_file_gives_the_same_segments_again(whisper: OneProcess) -> None:
    file = (FOLDER / "greeting.wav").read_bytes()

    assert segments(whisper, file) == segments(whisper, file)


def test_silence_is_an_error_of_the_request(whisper: OneProcess) -> None:
    with pytest.raises(InvalidRequest) as refused:
        whisper.run(request(wav_file(silence(2), RATE)))

    assert (refused.value.param, refused.value.code) == ("file", "no_speech")


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="no file"),
        pytest.param((Media(Modality.AUDIO, b"a", "file"), Media(Modality.AUDIO, b"b", "file")), id="two files"),
        pytest.param((Media(Modality.IMAGE, b"a", "file"),), id="a picture"),
        pytest.param((Text("hello"), Media(Modality.AUDIO, b"a", "file")), id="a file and text"),
    ],
)
def test_a_request_is_for_one_recording(whisper: OneProcess, parts: tuple[Media | Text, ...]) -> None:
    asked = request(b"")
    with pytest.raises(InvalidRequest, match="needs one audio file") as refused:
        whisper.run(type(asked)("whisper", (Message(Role.USER, parts),), asked.params))

    assert refused.value.param == "file"


@pytest.mark.parametrize("name", ["preprocess", "transcribe", "decode"])
def test_an_abort_leaves_nothing_in_a_stage(weights: Path, name: str) -> None:
    stage = FAMILY.pipeline.stage(name)
    scheduler, answers = FAMILY.factories[name](context(FAMILY, stage, weights, "auto")).scheduler, Answers()
    file = wav_file(spoken(40.0, "describe", 40.0, "greeting", 40.0), RATE)
    asked = arriving(file)
    scheduler.start(answers)
    try:
        scheduler.submit(asked if name == "preprocess" else NewRequest(asked.key, asked.params, None))
        if name == "transcribe":
            for window in _windows(weights, file):
                scheduler.submit(Chunk(asked.key, "preprocess", window))
        elif name == "decode":
            scheduler.submit(Chunk(asked.key, "transcribe", Passages(())))
        answers.wait_for(bool)  # in the midst of it
        scheduler.abort(asked.key)

        assert answers.end_of(asked.key) == Dropped(asked.key)
        assert (scheduler.load().running, scheduler.load().waiting) == (0, 0)
    finally:
        scheduler.stop()


def _windows(weights: Path, file: bytes) -> list[Window]:
    from omni_stage.models.whisper.components.preprocess import Preprocessor

    return [piece for piece in Preprocessor(weights, ("en",)).pieces(arriving(file)) if isinstance(piece, Window)]


PROGRAM = """
import json, sys
from pathlib import Path
from tests.unit.stage.media_files import FOLDER
from tests.unit.stage.one_process import one_process
from tests.unit.stage.whisper.recordings import request
from omni_stage.models import load_family

with one_process(load_family("whisper"), Path(sys.argv[1]), dtype="auto") as whisper:
    outcome = whisper.run(request((FOLDER / "question.wav").read_bytes(), word_times=True))
heard = "".join(segment.text for segment in outcome.outputs["decode"])
print(json.dumps([heard, sorted(sys.modules)]))
"""


def test_no_stage_needs_torch(weights: Path) -> None:
    """Though it is installed here: nothing that the stages import may pull it in."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM, weights], check=True, capture_output=True, timeout=50)
    heard, modules = json.loads(answer.stdout)

    assert heard == SAID["question"]
    assert not {"torch", "transformers", "safetensors"} & set(modules)
