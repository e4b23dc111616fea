"""Transcription and translation: the official client, in strict mode, against a real gateway, and callers at fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import httpx2
import numpy as np
import openai
import orjson
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionStreamEvent,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)
from openai.types.audio.transcription import UsageDuration
from tests.integration.gateway_mesh import Mesh, mesh

from omni_common.errors import InvalidRequest, Overloaded, StageFailed
from omni_common.request import (
    Media,
    Message,
    Modality,
    Role,
    Sampling,
    Segment,
    StageReport,
    Task,
    Text,
    TextOutput,
    Usage,
    Word,
)
from omni_common.testing.scripts import Admit, Finish, Scripted, Step, pipeline_status

pytestmark = pytest.mark.anyio

MODEL = "whisper"
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(range(256))
FILE = ("speech.wav", WAV)
SEGMENTS = (
    Segment(0.0, 1.5, " Hello there.", "en", (5, 6), 0.2, -0.25, 1.5, 0.125, (Word(" Hello", 0.1, 0.5),)),
    Segment(1.5, 3.0, " How are you?", "en", (7,), words=(Word(" How", 1.5, 1.75), Word(" are", 1.75, 2.0))),
)
TEXT = "Hello there. How are you?"
USAGE = Usage(prompt_audio_seconds=3.25, completion_text_tokens=3)
ANSWER: tuple[Step, ...] = (Admit(), *SEGMENTS, Finish(usage=USAGE))
ROUTE = "/v1/audio/transcriptions"


@asynccontextmanager
async def whisper(*tasks: Task, languages: tuple[str, ...] = ("en", "fr"), **settings: object) -> AsyncIterator[Mesh]:
    """A mesh whose one pipeline does these tasks, by default both of an open model's."""
    known = pipeline_status(
        MODEL,
        tasks=tasks or (Task.TRANSCRIPTION, Task.TRANSLATION),
        languages=languages,
        voices=(),
        takes=(Modality.AUDIO,),
        makes=(Modality.TEXT,),
        stages=("recogniser",),
    )
    async with mesh(known, **settings) as here:
        yield here


async def post(here: Mesh, file: bytes = WAV, **fields: object) -> httpx2.Response:
    """A request by a client that checks nothing."""
    return await here.http.post(ROUTE, data={"model": MODEL, **fields}, files={"file": ("a.wav", file)})


def refused(reply: httpx2.Response, status: int, param: str | None, code: str | None) -> None:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"].endswith(".")
    assert reply.headers["x-request-id"].startswith("req_")


async def test_json_satisfies_the_strict_client_and_the_mesh_gets_everything() -> None:
    async with whisper() as here:
        answer = here.coordinator.script(*ANSWER)
        reply = await here.openai.audio.transcriptions.create(
            model=MODEL, file=FILE, language="en", prompt="Names: Ada.", temperature=0.5, chunking_strategy="auto"
        )
    assert isinstance(reply, Transcription)
    assert reply.text == TEXT
    assert isinstance(reply.usage, UsageDuration)
    assert reply.usage.seconds == 3.25
    assert reply._request_id is not None
    assert answer.request is not None
    assert answer.request.messages == (
        Message(Role.SYSTEM, (Text("Names: Ada.", "prompt"),)),
        Message(Role.USER, (Media(Modality.AUDIO, WAV, "file"),)),
    )
    params = answer.request.params
    assert (params.task, params.language, params.word_times) == (Task.TRANSCRIPTION, "en", False)
    assert (params.modalities, params.sampling) == (frozenset({Modality.TEXT}), Sampling(temperature=0.5))


async def test_verbose_json_satisfies_the_strict_client() -> None:
    async with whisper() as here:
        answer = here.coordinator.script(*ANSWER)
        reply = await here.openai.audio.transcriptions.create(
            model=MODEL, file=FILE, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    assert isinstance(reply, TranscriptionVerbose)
    assert (reply.text, reply.language, reply.duration) == (TEXT, "english", 3.25)
    assert reply.segments is not None
    assert [(s.id, s.start, s.end, s.text) for s in reply.segments] == [
        (0, 0.0, 1.5, " Hello there."),
        (1, 1.5, 3.0, " How are you?"),
    ]
    first = reply.segments[0]
    assert (first.tokens, first.avg_logprob, first.compression_ratio) == ([5, 6], -0.25, 1.5)
    assert first.no_speech_prob == 0.125
    assert reply.words is not None
    assert [(w.word, w.start) for w in reply.words] == [("Hello", 0.1), ("How", 1.5), ("are", 1.75)]
    assert reply.usage is not None
    assert answer.request is not None
    assert answer.request.params.word_times


async def test_texts_and_subtitles_come_as_strings() -> None:
    async with whisper() as here:
        create = here.openai.audio.transcriptions.create
        for _ in range(3):
            here.coordinator.script(*ANSWER)
        assert await create(model=MODEL, file=FILE, response_format="text") == f"{TEXT}\n"
        assert await create(model=MODEL, file=FILE, response_format="srt") == (
            "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n00:00:01,500 --> 00:00:03,000\nHow are you?\n\n"
        )
        assert await create(model=MODEL, file=FILE, response_format="vtt") == (
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n00:00:01.500 --> 00:00:03.000\nHow are you?\n\n"
        )


async def test_a_stream_tells_each_segment_as_it_comes() -> None:
    async with whisper() as here:
        here.coordinator.script(Admit(), SEGMENTS[0], gate := anyio.Event(), SEGMENTS[1], Finish(usage=USAGE))
        stream = await here.openai.audio.transcriptions.create(model=MODEL, file=FILE, stream=True)
        events: list[TranscriptionStreamEvent] = []
        async for event in stream:
            events.append(event)
            gate.set()  # only the first segment can have brought this far
    deltas = [e.delta for e in events if isinstance(e, TranscriptionTextDeltaEvent)]
    assert deltas == ["Hello there.", " How are you?"]
    done = events[-1]
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert done.text == TEXT
    assert done.usage is not None
    assert (done.usage.type, done.usage.output_tokens, done.usage.total_tokens) == ("tokens", 3, 3)


async def test_a_silent_stream_is_kept_alive() -> None:
    async with whisper(ping_interval="50ms") as here:
        here.coordinator.script(Admit(), SEGMENTS[0], gate := anyio.Event(), Finish())
        files = {"file": ("a.wav", WAV)}
        async with here.http.stream("POST", ROUTE, data={"model": MODEL, "stream": "true"}, files=files) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            async for line in reply.aiter_lines():
                if line.startswith(": ping"):
                    gate.set()
        assert gate.is_set()


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_text_beside_the_segments_is_no_part_of_the_transcript(stream: str) -> None:
    async with whisper() as here:
        here.coordinator.script(Admit(), SEGMENTS[0], TextOutput("(coughs)"), SEGMENTS[1], Finish())
        reply = await post(here, stream=stream)
    assert orjson.loads(reply.text.strip().splitlines()[-1].removeprefix("data: "))["text"] == TEXT


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_long_file_has_more_segments_than_may_be_under_way(stream: str) -> None:
    async with whisper(output_credits=4) as here:
        here.coordinator.script(Admit(), *(Segment(n, n + 1, f" {n}", "en") for n in range(100)), Finish())
        reply = await post(here, stream=stream)
    told = orjson.loads(reply.text.strip().splitlines()[-1].removeprefix("data: "))
    assert told["text"] == " ".join(map(str, range(100)))


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_timings_come_with_every_json_when_asked_for(stream: str) -> None:
    async with whisper() as here:
        report = StageReport("recogniser", "recogniser-0", 0.25, 0.5, 1.0)
        here.coordinator.script(Admit("r-9"), *SEGMENTS, Finish(reports=(report,)))
        reply = await here.http.post(
            ROUTE,
            data={"model": MODEL, "stream": stream},
            files={"file": ("a.wav", WAV)},
            headers={"x-omni-stage-timings": "true"},
        )
    body = orjson.loads(reply.text.strip().splitlines()[-1].removeprefix("data: "))
    assert body["omni"]["request_id"] == "r-9"
    assert [s["stage"] for s in body["omni"]["stages"]] == ["recogniser"]


# The official client calls this route deprecated; OpenAI serves it, and so do others.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_translations_satisfy_the_strict_client() -> None:
    async with whisper() as here:
        answers = [here.coordinator.script(*ANSWER) for _ in range(3)]
        create = here.openai.audio.translations.create
        plain = await create(model=MODEL, file=FILE, prompt="Names: Ada.")
        verbose = await create(model=MODEL, file=FILE, response_format="verbose_json")
        subtitles = await create(model=MODEL, file=FILE, response_format="srt")
    assert isinstance(plain, Translation)
    assert plain.text == TEXT
    assert isinstance(verbose, TranslationVerbose)
    assert (verbose.language, verbose.duration) == ("english", 3.25)
    assert verbose.segments is not None
    assert len(verbose.segments) == 2
    assert isinstance(subtitles, str)
    assert subtitles.startswith("1\n00:00:00,000")
    assert {a.request.params.task for a in answers if a.request} == {Task.TRANSLATION}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_a_model_that_cannot_says_which_can() -> None:
    echo = pipeline_status("echo")
    english = pipeline_status(MODEL, tasks=(Task.TRANSCRIPTION,), languages=("en",))
    async with mesh(echo, english) as here:
        with pytest.raises(openai.BadRequestError, match="'echo' does no transcription; these can: whisper") as caught:
            await here.openai.audio.transcriptions.create(model="echo", file=FILE)
        assert (caught.value.param, caught.value.code) == ("model", "unsupported_model")
        with pytest.raises(openai.BadRequestError, match="'whisper' does no translation; no model here can"):
            await here.openai.audio.translations.create(model=MODEL, file=FILE)
        with pytest.raises(openai.NotFoundError):
            await here.openai.audio.transcriptions.create(model="whisper-9", file=FILE)


async def test_a_large_file_arrives_unchanged() -> None:
    file = WAV + np.random.default_rng(1).bytes(5 << 20)
    async with whisper() as here:
        answer = here.coordinator.script(*ANSWER)
        reply = await here.openai.audio.transcriptions.create(model=MODEL, file=("long.wav", file))
        assert here.gateway.client.live == 0
    assert reply.text == TEXT
    assert answer.request is not None
    (part,) = answer.request.messages[0].parts
    assert part == Media(Modality.AUDIO, file, "file")


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_failure_before_the_first_segment_keeps_its_status(stream: str) -> None:
    async with whisper() as here:
        here.coordinator.script(Admit(), InvalidRequest("No speech was found.", param="file", code="no_speech"))
        refused(await post(here, stream=stream), 400, "file", "no_speech")


async def test_overload_is_told_before_the_stream_begins() -> None:
    async with whisper() as here:
        here.coordinator.script(Overloaded("Stage 'recogniser' is full."))
        refused(await post(here, stream="true"), 429, None, "overloaded")


async def test_a_failure_after_the_first_segment_is_an_event_and_the_end() -> None:
    async with whisper() as here:
        here.coordinator.script(Admit(), SEGMENTS[0], gate := anyio.Event(), StageFailed("recogniser"))
        stream = await here.openai.audio.transcriptions.create(model=MODEL, file=FILE, stream=True)
        await anext(stream)
        gate.set()
        with pytest.raises(openai.APIError, match="recogniser"):
            async for _ in stream:
                pass


async def test_an_end_without_segments_is_an_empty_text() -> None:
    async with whisper() as here:
        for _ in range(2):
            here.coordinator.script(Admit(), Finish(usage=USAGE))
        assert (await here.openai.audio.transcriptions.create(model=MODEL, file=FILE)).text == ""
        reply = await post(here, stream="true")
    (event,) = [orjson.loads(line[6:]) for line in reply.text.splitlines() if line]
    assert (event["type"], event["text"]) == ("transcript.text.done", "")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "docx"}, "response_format", "invalid_value"),
        ({"response_format": "diarized_json"}, "response_format", "unsupported_parameter"),
        ({"include[]": ["logprobs"]}, "include[]", "unsupported_parameter"),
        ({"known_speaker_names[]": ["a", "b"]}, "known_speaker_names[]", "unsupported_parameter"),
        ({"temperature": "2"}, "temperature", "invalid_value"),
        ({"language": "de"}, "language", "invalid_value"),
        ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities", "invalid_value"),
        ({"stream": "true", "response_format": "vtt"}, "response_format", "invalid_value"),
        ({"model": ["whisper", "whisper"]}, "model", "invalid_value"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"made_up": "1"}, "made_up", "unsupported_parameter"),
    ],
)
async def test_a_form_that_cannot_be_served_is_refused_with_its_place(
    fields: dict[str, str | list[str]], param: str, code: str
) -> None:
    async with whisper() as here:
        refused(await post(here, WAV, **fields), 400, param, code)


async def test_a_file_that_is_missing_empty_or_no_audio_is_refused() -> None:
    async with whisper() as here:
        refused(await post(here, file=b""), 400, "file", "invalid_value")
        refused(await post(here, file=b"%PDF-1.7"), 400, "file", "unsupported_format")
        twice = [("file", ("a.wav", WAV)), ("file", ("b.wav", WAV))]
        refused(await here.http.post(ROUTE, data={"model": MODEL}, files=twice), 400, "file", "invalid_value")
        only_text = {"model": (None, MODEL), "file": (None, "RIFF")}
        refused(await here.http.post(ROUTE, files=only_text), 400, "file", "invalid_value")
        none = {"model": (None, MODEL)}
        refused(await here.http.post(ROUTE, files=none), 400, "file", "missing_required_parameter")


async def test_a_body_of_another_kind_or_form_is_refused() -> None:
    async with whisper() as here:
        refused(await here.http.post(ROUTE, json={"model": MODEL}), 415, None, "unsupported_media_type")
        refused(await here.http.post(ROUTE, data={"model": MODEL}), 415, None, "unsupported_media_type")
        for kind in ("multipart/form-data", "multipart/form-data; boundary=other"):
            reply = await here.http.post(ROUTE, content=b"--b\r\n", headers={"content-type": kind})
            refused(reply, 400, None, "invalid_form")
        assert (await here.http.get(ROUTE)).status_code == 405


async def test_a_file_above_the_limit_is_refused_before_it_is_sent() -> None:
    async with whisper(max_body="1MiB") as here:
        caller = await connect(here)
        await caller.send(head(2 << 20))
        with anyio.fail_after(5):
            reply = await caller.receive()
        await caller.aclose()
        assert reply.startswith(b"HTTP/1.1 413")
        refused(await post(here, file=WAV + bytes(1 << 20)), 413, None, "request_too_large")


async def test_files_count_as_held_until_their_request_has_ended() -> None:
    large = WAV + bytes(600_000)
    async with whisper(max_buffered_bodies="1MiB") as here:
        answer = here.coordinator.script(Admit(), gate := anyio.Event(), *SEGMENTS, Finish(usage=USAGE))
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                assert (await post(here, file=large)).status_code == 200

            tasks.start_soon(first)
            await answer.submitted.wait()
            refused(await post(here, file=large), 429, None, "overloaded")
            gate.set()
        here.coordinator.script(*ANSWER)
        assert (await post(here, file=large)).status_code == 200


async def test_a_slow_upload_is_given_up_after_a_while() -> None:
    async with whisper(body_timeout="100ms") as here:
        caller = await connect(here)
        await caller.send(head(1000) + BEGINNING)
        with anyio.fail_after(5):
            reply = await caller.receive()
        await caller.aclose()
    assert reply.startswith(b"HTTP/1.1 408")
    assert b'"code":"timeout"' in reply


async def test_a_caller_that_leaves_in_mid_upload_asks_for_nothing() -> None:
    async with whisper() as here:
        caller = await connect(here)
        await caller.send(head(1000) + BEGINNING)
        await caller.aclose()
        # A submit that nobody scripted would fail the test when the mesh is left.
        assert (await here.http.get("/livez")).status_code == 200


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("segments", [0, 1, 2])
async def test_a_caller_that_leaves_in_mid_transcription_cancels_it(stream: str, segments: int) -> None:
    async with whisper() as here:
        answer = here.coordinator.script(Admit(), *SEGMENTS[:segments], anyio.Event())
        body = BEGINNING + field("model", MODEL) + field("stream", stream) + b"--x--\r\n"
        caller = await connect(here)
        await caller.send(head(len(body)) + body)
        await answer.submitted.wait()
        if stream == "true" and segments:
            await caller.receive()
        await caller.aclose()
        await is_cancelled(here, answer)


async def test_a_caller_s_own_patience_bounds_a_unary_request() -> None:
    async with whisper() as here:
        answer = here.coordinator.script(Admit(), anyio.Event())
        reply = await here.http.post(
            ROUTE,
            data={"model": MODEL},
            files={"file": ("a.wav", WAV)},
            headers={"x-stainless-read-timeout": "0.2"},
        )
        await is_cancelled(here, answer)
    refused(reply, 504, None, "deadline_exceeded")


BEGINNING = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + WAV + b"\r\n"


def field(name: str, value: str) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def head(length: int) -> bytes:
    """A request's head by hand, for callers that no client library would be."""
    return (
        b"POST %s HTTP/1.1\r\nhost: gateway\r\ncontent-type: multipart/form-data; boundary=x\r\n"
        b"content-length: %d\r\n\r\n" % (ROUTE.encode(), length)
    )


async def connect(here: Mesh) -> anyio.abc.SocketStream:
    return await anyio.connect_tcp("127.0.0.1", here.port)


async def is_cancelled(here: Mesh, answer: Scripted) -> None:
    """The mesh has heard of the end, and the gateway holds nothing of the request."""
    with anyio.fail_after(5):
        await answer.cancelled.wait()
        await answer.ended.wait()
    assert here.gateway.client.live == 0
