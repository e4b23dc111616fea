"""A whole mesh of processes says what the whole model says, to a caller who only knows OpenAI's client."""

from __future__ import annotations

import io
from typing import Any

import anyio
import av
import numpy as np
import pytest
from tests.parity.cases import CASES, FRAMES, TEXT_TOKENS, Draw, request
from tests.parity.conftest import Expected
from tests.parity.hops import Hop, transports_used
from tests.parity.over_http import Heard, Served, spoken, wav_samples
from tests.parity.reference import Spoken
from transformers import AutoTokenizer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DRAWS = [pytest.param(Draw(None), id="greedy"), pytest.param(Draw(1234), id="seeded")]
WAYS = [pytest.param(True, id="streamed"), pytest.param(False, id="unary")]
FORMATS = ("wav", "mp3", "opus", "aac", "flac", "pcm16")
LONG = 200  # tokens of an answer that is long enough to be heard while it is written


@pytest.fixture(scope="module")
def tokenizer(tiny: object) -> Any:
    return AutoTokenizer.from_pretrained(tiny)


async def answer(served: Served, case: str, draw: Draw, *, streamed: bool) -> Heard:
    """The speech as bare samples."""
    if streamed:
        return await served.streamed(spoken(request(case, draw), "pcm16"))
    heard = await served.whole(spoken(request(case, draw), "wav"))
    heard.speech = wav_samples(heard.speech)
    return heard


def assert_same(heard: Heard, reference: Spoken, tokenizer: Any) -> None:
    assert heard.text == tokenizer.decode(reference.tokens, skip_special_tokens=True)
    wave = np.frombuffer(heard.speech, "<i2") / 32767
    usage = heard.usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    frames = usage.completion_tokens_details.audio_tokens or 0
    assert len(wave) == frames * 1920 - 555 == len(reference.wave)
    assert np.abs(wave - reference.wave.numpy()).max() < 1e-3
    assert usage.completion_tokens == len(reference.tokens) + frames
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    ended = reference.tokens[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert heard.finish == ("stop" if ended else "length")


@pytest.mark.parametrize("streamed", WAYS)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("case", CASES)
async def test_a_request_alone_is_answered_as_by_the_whole_model(
    case: str, draw: Draw, streamed: bool, served: Served, expected: Expected, tokenizer: Any
) -> None:
    assert_same(await answer(served, case, draw, streamed=streamed), expected.of(case, draw), tokenizer)


@pytest.mark.every_hop
@pytest.mark.parametrize("streamed", WAYS)
@pytest.mark.parametrize("draw", DRAWS)
async def test_eight_requests_at_once_are_answered_as_each_alone(
    draw: Draw, streamed: bool, served: Served, expected: Expected, tokenizer: Any
) -> None:
    heard: dict[str, Heard] = {}

    async def ask(case: str) -> None:
        heard[case] = await answer(served, case, draw, streamed=streamed)

    cases = [*CASES]
    assert len(cases) == 8
    async with anyio.create_task_group() as callers:
        for case in cases:
            callers.start_soon(ask, case)
    for case in cases:
        assert_same(heard[case], expected.of(case, draw), tokenizer)


@pytest.mark.every_hop
async def test_no_tensor_takes_another_way_than_the_one_that_is_forced(hop: Hop, served: Served) -> None:
    await served.streamed(spoken(request("image, audio and video", Draw(None)), "pcm16"))
    await served.until_idle()
    stages = [p.name for p in served.mesh.plan.processes if p.service == "omni_stage"]
    used = {edge: ways for name in stages for edge, ways in transports_used(await served.metrics(name)).items()}
    assert {"preprocess>aggregate", "image_encoder>aggregate", "thinker>talker", "talker>code2wav"} <= used.keys()
    if hop.transport is not None:
        assert used == {edge: {hop.transport} for edge in used}


def seconds(data: bytes, form: str) -> float:
    """How long the file plays, by decoding all of it."""
    if form == "pcm16":
        return len(data) / 48_000
    with av.open(io.BytesIO(data)) as file:
        return float(sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0)))


@pytest.mark.parametrize("form", FORMATS)
async def test_every_format_holds_all_of_the_speech(form: str, served: Served) -> None:
    asked = spoken(request("text", Draw(None)), form)
    expected = ((FRAMES - 1) * 1920 - 555) / 24_000
    for heard in (await served.whole(asked), await served.streamed(asked)):
        assert seconds(heard.speech, form) == pytest.approx(expected, abs=0.09)


async def test_speech_begins_while_the_text_is_still_being_written(served: Served) -> None:
    asked = spoken(request("text", Draw(None)), "pcm16", max_completion_tokens=LONG)
    heard = await served.streamed(asked)
    assert heard.usage is not None
    assert heard.usage.completion_tokens > LONG
    last_text = len(heard.order) - 1 - heard.order[::-1].index("text")
    assert heard.order.index("speech") < last_text
    times = heard.timings
    assert times["thinker"]["first_output"] < times["talker"]["first_output"] < times["thinker"]["end"]
    assert times["code2wav"]["first_output"] < times["thinker"]["end"]


async def test_the_last_chunk_of_a_stream_tells_the_usage(served: Served) -> None:
    async with await served.open(spoken(request("image", Draw(None)), "pcm16")) as stream:
        chunks = [chunk async for chunk in stream]
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == TEXT_TOKENS + FRAMES - 1
    assert last.usage.prompt_tokens_details is not None
    # The picture of 96 by 64 makes tokens of 32 by 32 pixels.
    assert last.usage.prompt_tokens_details.image_tokens == 6
