"""A whole mesh reads aloud what the whole model would, for a caller who only knows OpenAI's client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import anyio
import numpy as np
import openai
import pytest
from tests.parity.cases import Draw
from tests.parity.conftest import Expected
from tests.parity.over_http import Served
from tests.parity.readings import GREEDY, SENTENCE, TEXTS, request, turn
from tests.parity.reference import Spoken

from omni_common.request import Sampling

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DRAWS = [pytest.param(GREEDY, id="greedy"), pytest.param(Draw(1234), id="seeded")]
WAYS = [pytest.param(True, id="streamed"), pytest.param(False, id="unary")]
# Some 220 KB of embeddings: far above what a message holds, so they go as a blob.
LONG = "The licence applies to the program and to every work that is based on it. " * 42
CALM = "Speak slowly and in a low voice."


def asked(text: str, draw: Draw = GREEDY, *, talker: Sampling | None = None, **more: object) -> dict[str, Any]:
    """The same as `request` of `readings`, as bare samples."""
    params = request(text, draw, talker=talker).params
    stages = {
        name: {k: v for k, v in asdict(sampling).items() if v is not None}
        for name, sampling in params.stage_sampling.items()
    }
    own = {"stage_sampling": stages} | ({} if draw.seed is None else {"seed": draw.seed})
    return {
        "model": "qwen3-omni",
        "voice": "ethan",
        "input": text,
        "response_format": "pcm",
        "extra_body": own,
        **more,
    }


async def heard(served: Served, body: Mapping[str, Any], *, streamed: bool) -> bytes:
    if not streamed:
        reply = await served.client.audio.speech.create(**body)
        return bytes(reply.content)
    async with served.client.audio.speech.with_streaming_response.create(**body) as stream:
        return b"".join([piece async for piece in stream.iter_bytes()])


def assert_same(pcm: bytes, reference: Spoken) -> None:
    wave = np.frombuffer(pcm, "<i2") / 32767
    assert len(wave) == len(reference.wave)
    assert np.abs(wave - reference.wave.numpy()).max() < 1e-3


@pytest.mark.parametrize("streamed", WAYS)
@pytest.mark.parametrize("draw", DRAWS)
async def test_texts_read_at_once_are_read_as_each_alone(
    draw: Draw, streamed: bool, served: Served, expected: Expected
) -> None:
    texts = [*TEXTS.values(), LONG]
    made: dict[str, bytes] = {}

    async def ask(text: str) -> None:
        made[text] = await heard(served, asked(text, draw), streamed=streamed)

    async with anyio.create_task_group() as callers:
        for text in texts:
            callers.start_soon(ask, text)
    for text in texts:
        assert_same(made[text], expected.say(turn(text), text.strip(), draw))


async def test_the_voice_and_the_instructions_reach_the_talker(served: Served, expected: Expected) -> None:
    pcm = await heard(served, asked(SENTENCE, voice="chelsie", instructions=CALM), streamed=True)
    assert_same(pcm, expected.say(turn(SENTENCE, CALM), SENTENCE, GREEDY, "chelsie"))


@pytest.mark.parametrize("streamed", WAYS)
async def test_a_text_that_is_too_long_for_the_model_is_refused(streamed: bool, served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await heard(served, asked("\U0001f642" * 1000), streamed=streamed)
    assert (refused.value.param, refused.value.code) == ("input", "context_length_exceeded")


async def test_when_a_caller_leaves_a_reading_nothing_is_left_of_it(served: Served) -> None:
    await served.until_idle()
    # With its usual penalty this talker falls silent after some 70 frames, too soon to be left.
    endless = asked(SENTENCE, talker=Sampling(temperature=0, repetition_penalty=1.0, max_tokens=1500))
    async with served.client.audio.speech.with_streaming_response.create(**endless) as stream:
        pieces = stream.iter_bytes()  # kept, because the stream ends with it
        assert await anext(pieces)
        await served.until_live("qwen3-omni", "talker", 1)
    await served.until_idle()
