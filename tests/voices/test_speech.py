"""POST /v1/audio/speech on a mesh that speaks: formats, streams, speed, voices, many at once."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import anyio
import numpy as np
import openai
import psutil
import pytest
from tests.running import Running
from tests.voices.audio import FORMATS, MODEL, RATE, Format, Speech
from tests.voices.sentences import SENTENCES, SHORT

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GREETING = "Good morning. How can I help you today?"
TWENTY = " ".join(SHORT)
LONG = " ".join(SENTENCES)
SYNTHESISER = "piper-synthesise-0"
TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def batch_sizes(page: str) -> tuple[float, float]:
    """How many steps the synthesiser took, and how many sentences they made."""
    steps = re.search(r'^omni_stage_batch_size_count{stage="synthesise"} (\S+)$', page, re.M)
    items = re.search(r'^omni_stage_batch_size_sum{stage="synthesise"} (\S+)$', page, re.M)
    return (float(steps[1]), float(items[1])) if steps and items else (0.0, 0.0)


@pytest.mark.parametrize("form", FORMATS)
async def test_whole_streamed_and_in_events_it_is_the_same_speech(form: Format, running: Running) -> None:
    whole = await Speech.of(running.client, GREETING, form)
    streamed = await Speech.streamed(running.client, GREETING, form)
    events = await Speech.events(running.client, GREETING, form)

    assert (whole.content_type, streamed.content_type) == (TYPES[form], TYPES[form])
    assert events.content_type.startswith("text/event-stream")
    assert 2 < whole.seconds < 6
    assert np.abs(whole.samples).max() > 3000
    assert np.array_equal(whole.samples, streamed.samples)
    assert np.array_equal(whole.samples, events.samples)
    assert events.usage is not None
    assert events.usage["total_tokens"] == events.usage["input_tokens"] + events.usage["output_tokens"] > 0


@pytest.mark.parametrize("form", FORMATS)
async def test_sound_leaves_before_half_of_a_long_text_is_made(form: Format, running: Running) -> None:
    """The order of events: when the first bytes are here, the synthesiser has most of its sentences before it."""
    _, before = batch_sizes(await running.metrics(SYNTHESISER))
    pieces: list[bytes] = []
    made_at_first = 0.0
    async with running.client.audio.speech.with_streaming_response.create(
        model=MODEL, input=TWENTY, voice="", response_format=form
    ) as reply:
        async for piece in reply.iter_bytes():
            if not pieces:
                made_at_first = batch_sizes(await running.metrics(SYNTHESISER))[1] - before
            pieces.append(piece)
    made = batch_sizes(await running.metrics(SYNTHESISER))[1] - before

    assert made == 20
    assert made_at_first < made / 2
    joined = Speech(form, "", tuple(pieces))
    assert np.array_equal(joined.samples, (await Speech.of(running.client, TWENTY, form)).samples)


async def test_mp3_is_what_one_gets_without_asking(running: Running) -> None:
    reply = await running.client.audio.speech.create(model=MODEL, input=GREETING, voice="")
    assert reply.response.headers["content-type"] == "audio/mpeg"
    assert Speech("mp3", "", (reply.content,)).seconds > 2


@pytest.mark.parametrize("speed", [0.25, 0.5, 2.0, 4.0])
async def test_speed_changes_the_length_and_not_the_pitch(speed: float, running: Running) -> None:
    usual = await Speech.of(running.client, GREETING, "pcm")
    quick = await Speech.of(running.client, GREETING, "pcm", speed=speed)
    assert quick.seconds * speed == pytest.approx(usual.seconds, rel=0.03)
    assert centre(quick) == pytest.approx(centre(usual), rel=0.15)


def centre(speech: Speech) -> float:
    """Where the energy of a voice's lowest octaves lies, in Hz; resampling by 2 would double it."""
    spectrum = np.abs(np.fft.rfft(speech.samples.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(speech.samples), 1 / RATE)
    voiced = (hertz > 60) & (hertz < 500)
    return float((hertz * spectrum)[voiced].sum() / spectrum[voiced].sum())


async def test_voices_are_listed_and_chosen_by_name(running: Running) -> None:
    listed = await running.client.get("/audio/voices", cast_to=object)
    assert isinstance(listed, dict)
    (voice,) = (entry for entry in listed["data"] if entry["model"] == MODEL)
    assert voice["name"] == "en_US-joe-medium"
    named = await running.client.audio.speech.create(
        model=MODEL, input=GREETING, voice="en_US-joe-medium", response_format="pcm"
    )
    assert np.array_equal(
        np.frombuffer(named.content, "<i2"), (await Speech.of(running.client, GREETING, "pcm")).samples
    )


async def test_of_thirty_two_at_once_none_is_lost_and_they_share_batches(running: Running) -> None:
    sentences = [f"{sentence} {SHORT[index % 20]}" for index, sentence in enumerate(SENTENCES[:32])]
    alone = await Speech.of(running.client, sentences[0], "pcm")
    synthesiser = psutil.Process(running.mesh.supervisor.running()[SYNTHESISER])
    steps_before, items_before = batch_sizes(await running.metrics(SYNTHESISER))
    resident, peak = synthesiser.memory_info().rss, 0
    spoken: dict[str, Speech] = {}

    async def say(sentence: str) -> None:
        nonlocal peak
        spoken[sentence] = await Speech.streamed(running.client, sentence, "pcm")
        peak = max(peak, synthesiser.memory_info().rss)

    with anyio.fail_after(100):
        async with anyio.create_task_group() as tasks:
            for sentence in sentences:
                tasks.start_soon(say, sentence)

    steps, items = batch_sizes(await running.metrics(SYNTHESISER))
    assert all(1.5 < speech.seconds < 20 for speech in spoken.values())
    assert len(spoken) == 32
    assert items - items_before >= 64
    assert (items - items_before) / (steps - steps_before) > 1
    # A batch is padded, so that its rows differ in the last bits from those computed alone.
    beside = spoken[sentences[0]].samples.astype(int)
    assert len(beside) == len(alone.samples)
    assert np.abs(beside - alone.samples).max() <= 40
    assert peak - resident < 400 << 20
    await running.until_idle()


async def test_who_leaves_a_stream_frees_everything(running: Running) -> None:
    await running.until_idle()
    async with running.client.audio.speech.with_streaming_response.create(
        model=MODEL, input=LONG, voice="", response_format="pcm"
    ) as reply:
        async for _ in reply.iter_bytes():
            break
    left = time.monotonic()
    await running.until_idle()
    assert time.monotonic() - left < 5


async def test_who_leaves_before_the_first_sound_frees_everything(running: Running) -> None:
    await running.until_idle()
    async with anyio.create_task_group() as callers:
        callers.start_soon(Speech.of, running.client, LONG, "mp3")
        await running.until_live("piper", "synthesise", 1)
        callers.cancel_scope.cancel()
    await running.until_idle()


BAD: Mapping[str, tuple[dict[str, Any], int, str]] = {
    "empty text": ({"input": ""}, 400, "input"),
    "blank text": ({"input": "  \n "}, 400, "input"),
    "nothing to say": ({"input": "?!… 🙂"}, 400, "input"),
    "over-long text": ({"input": "word " * 1000}, 400, "input"),
    "unknown voice": ({"voice": "darth"}, 400, "voice"),
    "unknown format": ({"response_format": "midi"}, 400, "response_format"),
    "too slow": ({"speed": 0.1}, 400, "speed"),
    "too fast": ({"speed": 4.5}, 400, "speed"),
    "instructions": ({"instructions": "Whisper."}, 400, "instructions"),
    "a recogniser": ({"model": "whisper"}, 400, "model"),
    "no such model": ({"model": "tts-1"}, 404, "model"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_what_cannot_be_said_is_refused_with_the_part_at_fault(bad: str, running: Running) -> None:
    change, status, param = BAD[bad]
    asked: dict[str, Any] = {"model": MODEL, "input": GREETING, "voice": ""} | change
    with pytest.raises(openai.APIStatusError) as raised:
        await running.client.audio.speech.create(**asked)
    error = raised.value
    assert (error.status_code, error.param, error.type) == (status, param, "invalid_request_error")


async def test_the_refusal_says_which_models_can(running: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="these can: piper"):
        await running.client.audio.speech.create(model="whisper", input=GREETING, voice="")
    with pytest.raises(openai.BadRequestError, match="no model here can"):
        await running.client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
