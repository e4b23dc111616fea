"""The official OpenAI client, in strict mode, against a real gateway."""

from __future__ import annotations

import base64
import io
from typing import Literal

import av
import httpx2
import numpy as np
import orjson
import pytest
from openai.types.chat import ChatCompletionChunk
from tests.integration.gateway_mesh import MODEL, mesh

from omni_common.request import (
    AudioOutput,
    FinishReason,
    Media,
    Modality,
    Role,
    Sampling,
    StageReport,
    Text,
    TextOutput,
    Usage,
)
from omni_common.testing.scripts import Admit, Finish, Step

pytestmark = pytest.mark.anyio

USAGE = Usage(
    prompt_tokens=12, prompt_audio_tokens=3, prompt_image_tokens=4, completion_text_tokens=5, completion_audio_tokens=6
)
Format = Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
FORMATS: tuple[Format, ...] = ("wav", "aac", "mp3", "flac", "opus", "pcm16")
TONE = (np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000) * 20_000).astype("<i2").tobytes()


def spoken(*, pieces: int = 10) -> tuple[Step, ...]:
    """Text and a second of a tone, as a mesh sends them: mixed."""
    size = len(TONE) // pieces
    audio = [AudioOutput(TONE[i * size : (i + 1) * size], 24_000) for i in range(pieces)]
    return (Admit(), TextOutput("Hel"), audio[0], TextOutput("lo"), *audio[1:], Finish(usage=USAGE))


def seconds(data: bytes, form: Format) -> float:
    """How long the file plays, by decoding all of it."""
    if form == "pcm16":
        return len(data) / 48_000
    with av.open(io.BytesIO(data)) as file:
        return float(sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0)))


async def test_a_unary_answer_satisfies_the_strict_client() -> None:
    async with mesh() as here:
        answer = here.coordinator.script(
            Admit("r-7"), TextOutput("Hello"), TextOutput(" you"), Finish(FinishReason.LENGTH, USAGE)
        )
        reply = await here.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "hi"}],
            temperature=0,
            seed=-1,
            stop=["END"],
            max_completion_tokens=7,
        )
    assert reply.choices[0].message.content == "Hello you"
    assert reply.choices[0].message.audio is None
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (12, 11, 23)
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.text_tokens == 5
    assert reply._request_id is not None
    assert answer.request is not None
    assert [m.role for m in answer.request.messages] == [Role.SYSTEM, Role.USER]
    assert answer.request.messages[1].parts == (Text("hi", "messages[1].content"),)
    assert answer.request.params.sampling == Sampling(temperature=0, seed=2**64 - 1, max_tokens=7)
    assert answer.request.params.stop == ("END",)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_unary_answer_speaks_in_every_format(form: Format) -> None:
    async with mesh() as here:
        here.coordinator.script(*spoken())
        reply = await here.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            modalities=["text", "audio"],
            audio={"voice": "ethan", "format": form},
        )
    message = reply.choices[0].message
    assert message.content is None
    assert message.audio is not None
    assert message.audio.transcript == "Hello"
    assert message.audio.expires_at > reply.created
    assert seconds(base64.b64decode(message.audio.data), form) == pytest.approx(1.0, abs=0.09)


async def test_a_unary_wav_tells_its_length() -> None:
    async with mesh() as here:
        here.coordinator.script(*spoken())
        reply = await here.chat(modalities=["text", "audio"], audio={"voice": "Ethan", "format": "wav"})
    data = base64.b64decode(reply.json()["choices"][0]["message"]["audio"]["data"])
    assert data[44:] == TONE
    assert int.from_bytes(data[40:44], "little") == len(TONE)


async def test_a_stream_of_text_is_ordered_as_openai_documents() -> None:
    async with mesh() as here:
        here.coordinator.script(Admit(), TextOutput("Hello"), TextOutput(" you"), Finish(usage=USAGE))
        stream = await here.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "Hello you"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 23
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


@pytest.mark.parametrize("form", FORMATS)
async def test_a_stream_speaks_in_every_format(form: Format) -> None:
    async with mesh() as here:
        here.coordinator.script(*spoken())
        stream = await here.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            modalities=["text", "audio"],
            audio={"voice": "Ethan", "format": form},
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    audio = [d.audio for d in deltas if d.audio is not None]
    assert deltas[0].role == "assistant"
    assert [a.id is not None for a in audio] == [True] + [False] * (len(audio) - 1)
    assert "".join(a.transcript or "" for a in audio) == "Hello"
    assert not any(d.content for d in deltas)
    # Callers that join the base64 first must get the same file.
    data = base64.b64decode("".join(a.data or "" for a in audio))
    assert data == b"".join(base64.b64decode(a.data or "") for a in audio)
    assert seconds(data, form) == pytest.approx(1.0, abs=0.09)
    assert [_kind(c) for c in chunks[-3:]] == ["finish", "expires", "usage"]


def _kind(chunk: ChatCompletionChunk) -> str:
    if not chunk.choices:
        return "usage"
    choice = chunk.choices[0]
    if choice.finish_reason is not None:
        return "finish"
    audio = choice.delta.audio
    assert audio is not None
    assert audio.model_fields_set == {"expires_at"}
    return "expires"


async def test_the_helper_of_the_official_client_puts_a_spoken_stream_together() -> None:
    async with mesh() as here:
        here.coordinator.script(*spoken())
        async with here.openai.chat.completions.stream(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            modalities=["text", "audio"],
            audio={"voice": "Ethan", "format": "pcm16"},
        ) as stream:
            whole = await stream.get_final_completion()
    audio = whole.choices[0].message.audio
    assert audio is not None
    assert audio.transcript == "Hello"
    assert base64.b64decode(audio.data) == TONE


async def test_speech_of_another_rate_is_brought_to_24_khz() -> None:
    async with mesh() as here:
        here.coordinator.script(Admit(), AudioOutput(bytes(32_000), 16_000), Finish())
        reply = await here.chat(modalities=["text", "audio"], audio={"voice": "Ethan", "format": "pcm16"})
    data = base64.b64decode(reply.json()["choices"][0]["message"]["audio"]["data"])
    assert len(data) == pytest.approx(48_000, abs=200)


@pytest.mark.parametrize("stream", [False, True])
async def test_stage_timings_come_only_when_asked_for(stream: bool) -> None:
    report = StageReport("thinker", "thinker-0", 0.5, 0.75, 1.0)
    script = (Admit("r-9"), TextOutput("hi"), Finish(reports=(report,)))
    async with mesh() as here:
        here.coordinator.script(*script)
        here.coordinator.script(*script)
        here.http.headers["x-omni-stage-timings"] = "true"
        asked = _last_body(await here.chat(stream=stream))
        del here.http.headers["x-omni-stage-timings"]
        unasked = _last_body(await here.chat(stream=stream))
    stage = {"stage": "thinker", "replica": "thinker-0", "first_input": 0.5, "first_output": 0.75, "end": 1.0}
    assert asked["omni"] == {"request_id": "r-9", "stages": [stage]}
    assert "omni" not in unasked


def _last_body(reply: httpx2.Response) -> dict[str, object]:
    """The body of a unary reply, or the last chunk of a stream."""
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    body: dict[str, object] = orjson.loads(lines[-2] if lines[-1] == "[DONE]" else lines[-1])
    return body


async def test_an_answer_that_was_spoken_can_be_replayed_by_its_id() -> None:
    async with mesh() as here:
        here.coordinator.script(*spoken())
        first = await here.chat(modalities=["text", "audio"], audio={"voice": "Ethan", "format": "wav"})
        audio_id = first.json()["choices"][0]["message"]["audio"]["id"]
        second = here.coordinator.script(Admit(), TextOutput("ok"), Finish())
        await here.openai.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "user", "content": "hi"},
                {"role": "assistant", "audio": {"id": audio_id}},
                {"role": "user", "content": "what did you say?"},
            ],
        )
        unknown = await here.chat(messages=[{"role": "assistant", "audio": {"id": "audio_unknown"}}])
    assert second.request is not None
    assert second.request.messages[1].parts == (Text("Hello", "messages[1].audio.id"),)
    assert unknown.status_code == 400
    assert unknown.json()["error"]["param"] == "messages[0].audio.id"


async def test_media_of_every_kind_arrive_byte_for_byte() -> None:
    noise = bytes(range(256)) * 6_000
    png, wav, mp4 = b"\x89PNG\r\n\x1a\n" + noise, b"RIFF....WAVE" + noise[:1000], b"....ftyp" + noise[:70_000]
    async with mesh() as here:
        answer = here.coordinator.script(Admit(), TextOutput("a cat"), Finish())
        reply = await here.chat(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is this?"},
                        {"type": "image_url", "image_url": {"url": _data_url("image/png", png)}},
                        {"type": "input_audio", "input_audio": {"data": _base64(wav), "format": "wav"}},
                        {"type": "video_url", "video_url": {"url": _data_url("video/mp4", mp4)}},
                    ],
                }
            ]
        )
    assert reply.status_code == 200
    assert answer.request is not None
    assert answer.request.messages[0].parts == (
        Text("what is this?", "messages[0].content[0]"),
        Media(Modality.IMAGE, png, "messages[0].content[1].image_url"),
        Media(Modality.AUDIO, wav, "messages[0].content[2].input_audio"),
        Media(Modality.VIDEO, mp4, "messages[0].content[3].video_url"),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{_base64(data)}"


async def test_models_are_listed_and_found_by_name() -> None:
    async with mesh() as here:
        models = [model async for model in here.openai.models.list()]
        one = await here.openai.models.retrieve(MODEL)
    assert [m.id for m in models] == [MODEL]
    assert one.id == MODEL
    assert one.object == "model"
