"""The question as OpenAI's API wants it, and what is written of the answer."""

from __future__ import annotations

import wave
from pathlib import Path

import httpx2
import openai
import pytest

from omni_cli.conversation import Question, message, open_client, write_wav
from omni_cli.errors import CommandError

REQUEST = httpx2.Request("POST", "http://mesh/v1")


def test_media_come_first_as_data_and_the_text_last(tmp_path: Path) -> None:
    for name in ("cat.JPG", "q.wav", "clip.mp4"):
        (tmp_path / name).write_bytes(b"abc")
    question = Question("Why?", [tmp_path / "cat.JPG"], [tmp_path / "q.wav"], [tmp_path / "clip.mp4"])
    assert message(question) == {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,YWJj"}},
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,YWJj"}},
            {"type": "input_audio", "input_audio": {"data": "YWJj", "format": "wav"}},
            {"type": "text", "text": "Why?"},
        ],
    }


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (Question(""), "There is nothing to ask"),
        (Question("", images=[Path("missing.png")]), r"Cannot read missing\.png: No such file"),
        (Question("", images=[Path("notes.txt")]), r"notes\.txt is no image by its name"),
    ],
)
def test_what_cannot_be_sent_is_said_in_a_sentence(question: Question, sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        message(question)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (openai.APITimeoutError(REQUEST), r"^The mesh did not answer in time\.$"),
        (openai.APIConnectionError(request=REQUEST), r"^No mesh answers at http://mesh/v1\. "),
        (openai.APIError("Stage 'voice' failed.", REQUEST, body=None), r"^The mesh refused: Stage 'voice' failed\.$"),
        (httpx2.ReadError("reset"), r"^The mesh broke off in the middle of its answer\.$"),
    ],
)
async def test_what_goes_wrong_on_the_way_is_said_in_a_sentence(failure: Exception, sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        async with open_client("http://mesh/v1"):
            raise failure


def test_speech_is_written_as_24_khz_mono_wav(tmp_path: Path) -> None:
    write_wav(tmp_path / "out.wav", b"\x01\x00" * 2400)
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (24_000, 1, 2400)
