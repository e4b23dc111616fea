"""Speech over real HTTP: raw, and by the official OpenAI client in strict mode."""

from __future__ import annotations

import base64
import io
import select
import socket
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import anyio.to_thread
import av
import httpx2
import numpy as np
import openai
import orjson
import pytest
from prometheus_client import REGISTRY
from tests.integration.gateway_mesh import Mesh, mesh

from omni_common.errors import InvalidRequest, Overloaded, StageFailed
from omni_common.request import (
    AudioOutput,
    Message,
    Modality,
    Role,
    Sampling,
    StageReport,
    Task,
    Text,
    TextOutput,
    Usage,
)
from omni_common.testing.scripts import Admit, Finish, Scripted, Step, pipeline_status

pytestmark = pytest.mark.anyio

ROUTE = "/v1/audio/speech"
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
TYPES: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
VOICES = ("joe", "Amy")
PIPER = pipeline_status(
    "piper",
    voices=VOICES,
    tasks=(Task.SPEECH,),
    makes=(Modality.AUDIO,),
    languages=("en",),
    stages=("preprocess", "synthesiser"),
)
CHAT = pipeline_status("qwen3-omni", tasks=(Task.CHAT,))
USAGE = Usage(prompt_tokens=7, completion_text_tokens=2, completion_audio_tokens=20)
RATE = 22_050
TONE = (np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) * 20_000).astype("<i2").tobytes()
PIECES = [AudioOutput(TONE[i : i + 4_410], RATE) for i in range(0, len(TONE), 4_410)]
SPOKEN: tuple[Step, ...] = (Admit(), TextOutput("Hel"), *PIECES[:4], TextOutput("lo"), *PIECES[4:], Finish(usage=USAGE))


def body(**fields: object) -> dict[str, object]:
    return {"model": "piper", "input": "Hello.", "voice": "joe", **fields}


async def speak(here: Mesh, **fields: object) -> httpx2.Response:
    return await here.http.post(ROUTE, json=body(**fields))


@asynccontextmanager
async def speaking(here: Mesh, **fields: object) -> AsyncIterator[httpx2.Response]:
    async with here.http.stream("POST", ROUTE, json=body(**fields)) as reply:
        yield reply


def samples(data: bytes, form: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """All samples of a file, at 24 kHz but for Opus, which has 48."""
    if form == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float64)
    with av.open(io.BytesIO(data)) as file:
        frames = [frame.to_ndarray().astype(np.float64).ravel() for frame in file.decode(audio=0)]
    return np.concatenate(frames) if frames else np.zeros(0)


def events(text: str) -> list[dict[str, object]]:
    return [orjson.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def joined(seen: list[dict[str, object]]) -> bytes:
    """The file of some events: their base64 joined, then decoded."""
    return base64.b64decode("".join(str(e["audio"]) for e in seen if e["type"] == "speech.audio.delta"))


def refused(reply: httpx2.Response, status: int) -> dict[str, str | None]:
    assert reply.status_code == status, reply.text
    error: dict[str, str | None] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def outcomes(outcome: str) -> float:
    return REGISTRY.get_sample_value("omni_stream_outcomes_total", {"route": ROUTE, "outcome": outcome}) or 0.0


async def is_idle(here: Mesh, answer: Scripted) -> None:
    with anyio.fail_after(5):
        await answer.cancelled.wait()
        await answer.ended.wait()
    assert here.gateway.client.live == 0


@pytest.mark.parametrize("form", TYPES)
async def test_a_format_is_the_same_speech_whole_streamed_and_as_events(form: Format) -> None:
    async with mesh(PIPER) as here:
        for _ in range(4):
            here.coordinator.script(*SPOKEN)
        create = here.openai.audio.speech
        whole = await create.create(model="piper", input="Hello.", voice="joe", response_format=form)
        async with create.with_streaming_response.create(
            model="piper", input="Hello.", voice="joe", response_format=form
        ) as stream:
            streamed = b"".join([piece async for piece in stream.iter_bytes()])
        async with create.with_streaming_response.create(
            model="piper", input="Hello.", voice="joe", response_format=form, stream_format="sse"
        ) as stream:
            told = events("\n".join([line async for line in stream.iter_lines()]))
            content_type = stream.headers["content-type"]
        plain = await speak(here, response_format=form)
    assert len(samples(whole.content, form)) / (48_000 if form == "opus" else 24_000) == pytest.approx(1, abs=0.09)
    for other in (streamed, joined(told), plain.content):
        assert np.array_equal(samples(other, form), samples(whole.content, form))
    assert content_type == "text/event-stream"
    assert whole.response.headers["content-type"] == plain.headers["content-type"] == TYPES[form]
    assert int(whole.response.headers["content-length"]) == len(whole.content)
    assert plain.headers["transfer-encoding"] == "chunked"
    assert {e["type"] for e in told[:-1]} == {"speech.audio.delta"}
    assert told[-1] == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 7, "output_tokens": 22, "total_tokens": 29},
    }


async def test_the_default_is_mp3_in_the_default_voice() -> None:
    async with mesh(PIPER) as here:
        answer = here.coordinator.script(*SPOKEN)
        reply = await here.http.post(ROUTE, json={"model": "piper", "input": "Hello."})
    assert reply.headers["content-type"] == "audio/mpeg"
    with av.open(io.BytesIO(reply.content)) as file:
        assert file.format.name == "mp3"
    assert answer.request is not None
    assert answer.request.params.voice == ""


async def test_what_the_caller_wants_reaches_the_mesh() -> None:
    async with mesh(PIPER) as here:
        answer = here.coordinator.script(*SPOKEN)
        await here.openai.audio.speech.create(
            model="piper",
            input="Hello.",
            voice={"id": "JOE"},
            instructions="Cheerfully.",
            extra_body={"seed": 3, "stage_sampling": {"synthesiser": {"temperature": 0.5}}},
        )
    request = answer.request
    assert request is not None
    assert request.messages == (
        Message(Role.SYSTEM, (Text("Cheerfully.", "instructions"),)),
        Message(Role.USER, (Text("Hello.", "input"),)),
    )
    assert request.params.task is Task.SPEECH
    assert request.params.modalities == {Modality.AUDIO}
    assert request.params.voice == "joe"
    assert request.params.sampling == Sampling(seed=3)
    assert request.params.stage_sampling == {"synthesiser": Sampling(temperature=0.5)}


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_the_first_bytes_leave_before_the_rest_is_made(stream_format: str) -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(Admit(), *PIECES[:5], gate := anyio.Event(), *PIECES[5:], Finish())
        async with speaking(here, stream_format=stream_format) as reply:
            pieces = reply.aiter_bytes()
            first = await anext(pieces)
            gate.set()
            rest = [piece async for piece in pieces]
    assert first
    assert rest


@pytest.mark.parametrize("client", ["python", "curl"])
async def test_text_that_the_caller_is_not_told_does_not_use_up_the_credits(client: str) -> None:
    text = [TextOutput("x")] * 40
    async with mesh(PIPER, output_credits=4) as here:
        here.coordinator.script(Admit(), *text, *PIECES, *text, Finish())
        reply = await here.http.post(ROUTE, json=body(response_format="pcm"), headers={"x-stainless-lang": client})
    assert len(reply.content) == 48_000


@pytest.mark.parametrize("speed", [0.25, 1.5, 4])
async def test_speed_changes_the_length(speed: float) -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(*SPOKEN)
        reply = await speak(here, response_format="pcm", speed=speed)
    assert len(reply.content) / 48_000 == pytest.approx(1 / speed, rel=0.001)


async def test_a_streamed_wav_can_be_read_by_what_reads_lengths() -> None:
    async with mesh(PIPER) as here:
        for _ in range(3):
            here.coordinator.script(*SPOKEN)
        streamed = (await speak(here, response_format="wav")).content
        whole = await here.openai.audio.speech.create(model="piper", input="Hello.", voice="joe", response_format="wav")
        pcm = (await speak(here, response_format="pcm")).content
    with wave.open(io.BytesIO(streamed)) as file:
        assert file.readframes(file.getnframes()) == pcm
    with wave.open(io.BytesIO(whole.content)) as file:
        assert file.getnframes() == len(pcm) // 2 == 24_000


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("client", ["python", "curl"])
async def test_a_pipeline_that_says_nothing_has_failed(client: str, stream_format: str) -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(Admit(), TextOutput("..."), Finish())
        fields = body(response_format="wav", stream_format=stream_format)
        reply = await here.http.post(ROUTE, json=fields, headers={"x-stainless-lang": client})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "stage_failed")
    assert reply.json()["error"]["message"] == "The model made no sound for this text."


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": " \n\t\u3000"}, "input", "invalid_value"),
        ({"input": "a\0b"}, "input", "invalid_value"),
        ({"input": 7}, "input", "invalid_value"),
        ({"input": "x" * 4097}, "input", "string_above_max_length"),
        ({"instructions": "x" * 4097}, "instructions", "string_above_max_length"),
        ({"instructions": "\0"}, "instructions", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"voice": "nobody"}, "voice", "invalid_value"),
        ({"voice": {"id": "nobody"}}, "voice", "invalid_value"),
        ({"voice": {}}, "voice.id", "missing_required_parameter"),
        ({"voice": 3}, "voice", "invalid_value"),
        ({"response_format": "midi"}, "response_format", "invalid_value"),
        ({"response_format": "pcm16"}, "response_format", "invalid_value"),
        ({"stream_format": "websocket"}, "stream_format", "invalid_value"),
        ({"speed": 0.24}, "speed", "invalid_value"),
        ({"speed": 4.01}, "speed", "invalid_value"),
        ({"speed": "1"}, "speed", "invalid_value"),
        ({"speed": True}, "speed", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"stage_sampling": {"cellar": {}}}, "stage_sampling", "invalid_value"),
        ({"stream": True}, "stream", "unsupported_parameter"),
        ({"ref_audio": "/etc/passwd"}, "ref_audio", "unsupported_parameter"),
    ],
)
async def test_what_cannot_be_spoken_is_refused_with_its_place(
    fields: dict[str, object], param: str, code: str
) -> None:
    async with mesh(PIPER) as here:
        error = refused(await speak(here, **fields), 400)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert str(error["message"]).endswith(".")
    if param == "voice" and fields["voice"] != 3:
        assert "joe, Amy" in str(error["message"])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"input": "\\ud800"}', b'{"speed": NaN}', b'{"speed": 1e999}'])
async def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    async with mesh(PIPER) as here:
        refused(await here.http.post(ROUTE, content=content, headers={"content-type": "application/json"}), 400)


async def test_a_text_of_the_greatest_length_and_null_are_fine() -> None:
    async with mesh(PIPER) as here:
        answer = here.coordinator.script(*SPOKEN)
        reply = await speak(here, input="é" * 4096, voice=None, instructions=None, speed=None, seed=None)
    assert reply.status_code == 200
    assert answer.request is not None
    assert [m.role for m in answer.request.messages] == [Role.USER]


async def test_a_model_that_lacks_the_task_says_which_have_it() -> None:
    async with mesh(PIPER, CHAT) as here:
        speech = refused(await speak(here, model="qwen3-omni"), 400)
        chat = refused(await here.chat(model="piper"), 400)
        unknown = refused(await speak(here, model="tts-1"), 404)
    assert speech["message"] == "The model 'qwen3-omni' does no speech; these can: piper."
    assert chat["message"] == "The model 'piper' does no chat; these can: qwen3-omni."
    assert speech["param"] == unknown["param"] == "model"
    assert unknown["code"] == "model_not_found"


async def test_voices_are_listed_for_all_models_and_for_one() -> None:
    both = pipeline_status("qwen3-omni", tasks=(Task.CHAT, Task.SPEECH), voices=("Ethan", "joe"))
    async with mesh(PIPER, both, pipeline_status("mute")) as here:
        everything = (await here.http.get("/v1/audio/voices")).json()
        one = (await here.http.get("/v1/audio/voices", params={"model": "piper"})).json()
        unknown = await here.http.get("/v1/audio/voices", params={"model": "tts-1"})
        mute = await here.http.get("/v1/audio/voices", params={"model": "mute"})
    assert everything["object"] == "list"
    assert [(v["model"], v["id"]) for v in everything["data"]] == [
        ("piper", "joe"),
        ("piper", "Amy"),
        ("qwen3-omni", "Ethan"),
        ("qwen3-omni", "joe"),
    ]
    assert everything["voices"] == ["joe", "Amy", "Ethan"]
    assert one["data"][0] == {
        "id": "joe",
        "object": "audio.voice",
        "name": "joe",
        "model": "piper",
        "default": True,
        "languages": ["en"],
    }
    assert [v["default"] for v in one["data"]] == [True, False]
    refused(unknown, 404)
    assert refused(mute, 400)["code"] == "unsupported_model"


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize(
    ("failure", "status"), [(StageFailed("synthesiser"), 500), (Overloaded("Full."), 429), (InvalidRequest("No."), 400)]
)
async def test_a_failure_before_the_first_byte_keeps_its_status(
    stream_format: str, failure: StageFailed | Overloaded | InvalidRequest, status: int
) -> None:
    async with mesh(PIPER) as here:
        # Text is no part of the answer, and this little speech makes no byte yet.
        here.coordinator.script(Admit(), TextOutput("Hel"), AudioOutput(bytes(48), RATE), failure)
        refused(await speak(here, stream_format=stream_format), status)


async def test_a_later_failure_of_a_stream_of_events_is_its_last_event() -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(Admit(), *PIECES[:5], gate := anyio.Event(), StageFailed("synthesiser"))
        before = outcomes("stage_failed")
        async with speaking(here, stream_format="sse", response_format="pcm") as reply:
            lines = reply.aiter_lines()
            seen = [await anext(lines)]
            gate.set()
            seen += [line async for line in lines]
    told = events("\n".join(seen))
    assert told[0]["type"] == "speech.audio.delta"
    error = told[-1]["error"]
    assert isinstance(error, dict)
    assert error["code"] == "stage_failed"
    assert all(e.get("type") != "speech.audio.done" for e in told)
    assert outcomes("stage_failed") == before + 1


@pytest.mark.parametrize("form", TYPES)
async def test_a_later_failure_of_raw_audio_does_not_look_like_its_end(form: Format) -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(Admit(), *PIECES[:5], gate := anyio.Event(), StageFailed("synthesiser"))
        before = outcomes("stage_failed")
        with pytest.raises(httpx2.TransportError):
            await _read_all(here, form, gate)
        assert outcomes("stage_failed") == before + 1
        assert here.gateway.client.live == 0


async def _read_all(here: Mesh, form: Format, after_first: anyio.Event) -> None:
    async with here.openai.audio.speech.with_streaming_response.create(
        model="piper", input="Hello.", voice="joe", response_format=form
    ) as reply:
        async for _ in reply.iter_bytes():
            after_first.set()


async def test_who_reads_whole_files_gets_a_late_failure_by_its_status() -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(Admit(), *PIECES, StageFailed("synthesiser"))
        with pytest.raises(openai.InternalServerError) as caught:
            await here.openai.audio.speech.create(model="piper", input="Hello.", voice="joe")
    assert caught.value.code == "stage_failed"


async def test_whole_files_of_all_callers_together_are_bounded() -> None:
    async with mesh(PIPER, max_buffered_replies="40KiB") as here:
        here.coordinator.script(*SPOKEN)  # a second: 48 KB as samples, 4 as MP3
        with pytest.raises(openai.RateLimitError, match="holds as many bytes of replies as it may"):
            await here.openai.audio.speech.create(model="piper", input="Hello.", voice="joe", response_format="wav")
        for _ in range(12):  # each is given back
            here.coordinator.script(*SPOKEN)
            await here.openai.audio.speech.create(model="piper", input="Hello.", voice="joe", response_format="mp3")
        here.coordinator.script(*SPOKEN)
        assert len((await speak(here, response_format="wav")).content) > 48_000


async def test_silence_is_filled_with_comments_among_events_and_with_nothing_in_raw_audio() -> None:
    async with mesh(PIPER, ping_interval="20ms") as here, anyio.create_task_group() as tasks:
        gate = anyio.Event()
        for _ in range(2):
            here.coordinator.script(Admit(), *PIECES[:5], gate, *PIECES[5:], Finish())
        raw: list[bytes] = []

        async def read_raw() -> None:
            raw.append((await speak(here, response_format="pcm")).content)

        async with speaking(here, response_format="pcm", stream_format="sse") as reply:
            lines: list[str] = []
            async for line in reply.aiter_lines():
                if not lines:
                    tasks.start_soon(read_raw)
                lines.append(line)
                if lines.count(": ping") == 5:
                    gate.set()
        told = events("\n".join(lines))
    assert raw == [joined(told)]
    assert len(raw[0]) == 48_000


async def test_timings_come_with_the_last_event_when_asked_for() -> None:
    report = StageReport("synthesiser", "synthesiser-0", 0.5, 0.75, 1.0)
    async with mesh(PIPER) as here:
        for _ in range(2):
            here.coordinator.script(Admit("r-9"), *PIECES, Finish(reports=(report,)))
        unasked = events((await speak(here, stream_format="sse")).text)[-1]
        here.http.headers["x-omni-stage-timings"] = "true"
        asked = events((await speak(here, stream_format="sse")).text)[-1]
    assert "omni" not in unasked
    stage = {"stage": "synthesiser", "replica": "synthesiser-0", "first_input": 0.5, "first_output": 0.75, "end": 1.0}
    assert asked["omni"] == {"request_id": "r-9", "stages": [stage]}


@pytest.mark.parametrize("fields", [{}, {"stream_format": "sse"}])
@pytest.mark.parametrize("outputs", [0, 1, 5])
async def test_a_caller_that_leaves_cancels_its_request(fields: dict[str, object], outputs: int) -> None:
    async with mesh(PIPER) as here:
        answer = here.coordinator.script(Admit(), *PIECES[:outputs], anyio.Event())
        caller = await anyio.connect_tcp("127.0.0.1", here.port)
        await caller.send(_by_hand(**fields))
        await answer.submitted.wait()
        if outputs == 5:
            await caller.receive()
        await caller.aclose()
        await is_idle(here, answer)


@pytest.mark.parametrize("fields", [{}, {"stream_format": "sse"}])
async def test_a_caller_that_reads_nothing_stops_the_mesh_and_is_cut_off(fields: dict[str, object]) -> None:
    before = outcomes("slow_consumer")
    async with mesh(PIPER, stall_timeout="300ms", output_credits=4) as here:
        pieces = 2_000
        answer = here.coordinator.script(Admit(), *[AudioOutput(bytes(44_100), RATE)] * pieces, Finish())
        with socket.socket() as caller:
            # A small window, so that little fits between the two ends.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", here.port))
            caller.sendall(_by_hand(response_format="pcm", **fields))
            await is_idle(here, answer)
            poll = select.poll()
            poll.register(caller, 0)  # only what is always reported: the other end has reset the connection
            assert await anyio.to_thread.run_sync(poll.poll, 5_000)
        # What the kernel took of the socket, some megabytes at most, and one window of credits.
        assert answer.sent < pieces / 4
    assert outcomes("slow_consumer") == before + 1


def _by_hand(**fields: object) -> bytes:
    """A request of a caller that no client library would be."""
    content = orjson.dumps(body(**fields))
    return (
        b"POST %s HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % (ROUTE.encode(), len(content))
    ) + content
