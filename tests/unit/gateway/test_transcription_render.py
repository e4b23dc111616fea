"""Transcripts in every format, and cut for a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.request import Media, Modality, Segment, Task, Usage, Word
from omni_gateway.transcription.languages import language_name
from omni_gateway.transcription.parse import Wish
from omni_gateway.transcription.render import Transcript, render
from omni_gateway.transcription.schemas import ResponseFormat
from omni_gateway.transcription.stream import Deltas
from omni_gateway.transcription.subtitles import srt, vtt

SEGMENTS = (
    Segment(0.0, 2.5, " Hello, you.", "en", (1, 2), 0.2, -0.3, 1.1, 0.01, (Word(" Hello,", 0.1, 0.6),)),
    Segment(3661.0049, 3662.9996, " A --> <b>&\n\n B ", "en", (3,), words=(Word(" A", 3661.1, 3661.2),)),
)
USAGE = Usage(prompt_audio_seconds=3663.25, completion_text_tokens=3)
FILE = Media(Modality.AUDIO, b"RIFF", "file")
TIME = re.compile(r"^(\d{2,}):([0-5]\d):([0-5]\d)[,.](\d{3})$")


def asked(response_format: ResponseFormat = "json", task: Task = Task.TRANSCRIPTION, **more: object) -> Wish:
    return Wish(task, "whisper", FILE, "", response_format, None, **more)  # type: ignore[arg-type]


def rendered(wish: Wish, segments: Sequence[Segment] = SEGMENTS) -> tuple[str, str]:
    kind, body = render(Transcript(segments, USAGE), wish)
    return kind, body.decode()


def test_json_is_the_text_and_the_duration() -> None:
    kind, body = rendered(asked())
    assert kind == "application/json"
    assert orjson.loads(body) == {
        "text": "Hello, you. A --> <b>&\n\n B",
        "usage": {"type": "duration", "seconds": 3663.25},
    }


def test_text_is_one_text_with_a_line_s_end() -> None:
    assert rendered(asked("text"), SEGMENTS[:1]) == ("text/plain; charset=utf-8", "Hello, you.\n")


def test_subrip_is_exact() -> None:
    kind, body = rendered(asked("srt"))
    assert kind == "text/plain; charset=utf-8"
    assert body == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello, you.\n\n2\n01:01:01,005 --> 01:01:03,000\nA -> <b>& B\n\n"
    )


def test_webvtt_is_exact() -> None:
    kind, body = rendered(asked("vtt"))
    assert kind == "text/vtt; charset=utf-8"
    assert body == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.500\nHello, you.\n\n"
        "01:01:01.005 --> 01:01:03.000\nA --&gt; &lt;b&gt;&amp; B\n\n"
    )


def test_nothing_said_makes_empty_files() -> None:
    silence = (Segment(0, 1, "  ", "en"),)
    assert srt(silence) == ""
    assert vtt(silence) == "WEBVTT\n\n"
    assert rendered(asked("text"), ())[1] == "\n"
    assert orjson.loads(rendered(asked("verbose_json"), ())[1])["segments"] == []


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("segments", [True, False])
def test_verbose_json_has_what_was_asked_for(words: bool, segments: bool) -> None:
    body = orjson.loads(rendered(asked("verbose_json", words=words, segments=segments))[1])
    assert body["task"] == "transcribe"
    assert body["language"] == "english"
    assert body["duration"] == 3663.25
    assert ("words" in body, "segments" in body) == (words, segments)
    if words:
        assert body["words"][1] == {"word": "A", "start": 3661.1, "end": 3661.2}
    if segments:
        assert [s["id"] for s in body["segments"]] == [0, 1]
        assert body["segments"][0] == {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": 2.5,
            "text": " Hello, you.",
            "tokens": [1, 2],
            "temperature": 0.2,
            "avg_logprob": -0.3,
            "compression_ratio": 1.1,
            "no_speech_prob": 0.01,
        }
        assert body["segments"][1]["seek"] == 366_100


def test_a_translation_is_english_and_has_no_usage() -> None:
    french = (Segment(0, 1, " Good day.", "fr"),)
    body = orjson.loads(rendered(asked("verbose_json", Task.TRANSLATION), french)[1])
    assert (body["task"], body["language"], "usage" in body) == ("translate", "english", False)
    assert orjson.loads(rendered(asked(task=Task.TRANSLATION), french)[1]) == {"text": "Good day."}


def test_the_language_is_the_one_told_or_heard() -> None:
    silent_first = (Segment(0, 1, "", ""), Segment(1, 2, " Guten Tag.", "de"))
    assert orjson.loads(rendered(asked("verbose_json"), silent_first)[1])["language"] == "german"
    told = asked("verbose_json", language="nl")
    assert orjson.loads(rendered(told, silent_first)[1])["language"] == "dutch"
    assert [language_name(code) for code in ("yue", "ht", "xx", "")] == ["cantonese", "haitian creole", "xx", ""]


seconds = st.floats(-1, 400_000, allow_nan=False)


def _milliseconds(text: str) -> int:
    match = TIME.match(text)
    assert match is not None, text
    hours, minutes, rest, thousandths = map(int, match.groups())
    return ((hours * 60 + minutes) * 60 + rest) * 1000 + thousandths


@given(st.lists(st.builds(Segment, seconds, seconds, st.text(), st.just("en")), max_size=8))
def test_subtitles_can_be_read_back(segments: Sequence[Segment]) -> None:
    said = [s for s in segments if s.text.split()]
    blocks = srt(segments).split("\n\n")[:-1]
    cues = vtt(segments).split("\n\n")[1:-1]
    assert len(blocks) == len(cues) == len(said)
    for number, (block, cue, segment) in enumerate(zip(blocks, cues, said, strict=True), 1):
        index, srt_times, srt_text = block.split("\n")
        vtt_times, vtt_text = cue.split("\n")
        assert index == str(number)
        assert "-->" not in srt_text
        assert "-->" not in vtt_text
        start, end = map(_milliseconds, vtt_times.split(" --> "))
        assert [start, end] == [*map(_milliseconds, srt_times.split(" --> "))]
        assert abs(start - 1000 * max(0.0, segment.start)) <= 0.5001
        assert end >= start


@given(st.lists(st.text(" \n\tab", max_size=5), max_size=10))
def test_joined_the_deltas_are_the_text(pieces: Sequence[str]) -> None:
    deltas = Deltas()
    assert "".join(map(deltas.cut, pieces)) == "".join(pieces).strip()
