"""A whole mesh of processes when requests are wrong, callers leave and processes die."""

from __future__ import annotations

import base64
import io
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import openai
import pytest
from PIL import Image
from tests.parity.cases import Draw, film, request, sound
from tests.parity.over_http import Heard, Served, body, spoken
from tests.running import failure_of

from omni_common.clock import monotonic

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GREEDY = Draw(None)
WAYS = [pytest.param(True, id="streamed"), pytest.param(False, id="unary")]
LONG = 1500  # tokens and frames: seconds of work, so that it is under way when something happens to it
IMAGE, AUDIO = "messages[0].content[0].image_url", "messages[0].content[0].input_audio"


def image(data: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def vast_picture() -> bytes:
    """A few KB that ask for 64 million pixels."""
    out = io.BytesIO()
    Image.new("1", (8000, 8000)).save(out, "PNG")
    return out.getvalue()


def silent_file() -> bytes:
    """A WAV header and no samples."""
    return sound()[:40] + bytes(4)


WRONG: Mapping[str, tuple[dict[str, Any], int, str, str | None]] = {
    "damaged image": (image(b"\x89PNG\r\n\x1a\n" + bytes(500)), 400, IMAGE, None),
    "sound as image": (image(sound()), 400, IMAGE, "unsupported_format"),
    "silent film as sound": (audio(film()), 400, AUDIO, None),
    "no bytes of sound": (audio(b""), 400, AUDIO, "invalid_value"),
    "no samples of sound": (audio(silent_file()), 400, AUDIO, None),
    "too many pixels": (image(vast_picture()), 413, IMAGE, "request_too_large"),
    "too long a prompt": ({"type": "text", "text": "omni " * 5000}, 400, "messages", "context_length_exceeded"),
}


async def refusal(served: Served, asked: Mapping[str, Any], *, streamed: bool) -> openai.APIStatusError:
    """The error, with what every reply has; afterwards the mesh still serves."""
    with pytest.raises(openai.APIStatusError) as raised:
        await (served.streamed if streamed else served.whole)(asked)
    assert (raised.value.request_id or "").startswith("req_")
    assert (await served.whole(body(request("text", GREEDY), max_completion_tokens=2))).finish == "length"
    return raised.value


@pytest.mark.parametrize("streamed", WAYS)
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_request_is_refused_with_the_part_at_fault(wrong: str, streamed: bool, served: Served) -> None:
    part, status, param, code = WRONG[wrong]
    asked = body(request("text", GREEDY), messages=[{"role": "user", "content": [part]}])
    error = await refusal(served, asked, streamed=streamed)
    assert (error.status_code, error.type, error.param, error.code) == (status, "invalid_request_error", param, code)
    assert isinstance(error, openai.BadRequestError) == (status == 400)


@pytest.mark.parametrize("streamed", WAYS)
async def test_an_unknown_model_is_not_found(streamed: bool, served: Served) -> None:
    error = await refusal(served, body(request("text", GREEDY), model="gpt-0"), streamed=streamed)
    assert isinstance(error, openai.NotFoundError)
    assert error.code == "model_not_found"


def long_speech() -> dict[str, Any]:
    # With its usual penalty this talker falls silent after some 70 frames, too soon for what happens here.
    talker = {"temperature": 0, "repetition_penalty": 1.0, "max_tokens": LONG}
    return spoken(
        request("image and audio", GREEDY),
        "pcm16",
        max_completion_tokens=LONG,
        extra_body={"stage_sampling": {"talker": talker}},
    )


async def test_when_a_caller_leaves_a_stream_nothing_is_left_of_its_request(served: Served) -> None:
    await served.until_idle()
    heard = Heard()
    stream = await served.open(long_speech())
    async for chunk in stream:
        heard.take(chunk)
        if heard.speech:
            break
    await served.until_live("qwen3-omni", "thinker", 1)
    await stream.close()
    await served.until_idle()
    assert heard.finish is None


async def test_when_a_caller_leaves_a_whole_answer_nothing_is_left_of_its_request(served: Served) -> None:
    await served.until_idle()
    async with anyio.create_task_group() as callers:
        callers.start_soon(served.whole, long_speech())
        await served.until_live("qwen3-omni", "thinker", 1)
        callers.cancel_scope.cancel()
    await served.until_idle()


async def test_who_needs_a_process_that_dies_hears_it_at_once_and_nobody_else_does(served: Served) -> None:
    """The talker is killed under two spoken answers and a written one; then it comes back."""
    talker = served.process_of("qwen3-omni", "talker")
    if talker == served.process_of("qwen3-omni", "thinker"):
        pytest.skip("everybody needs the one process of all stages")
    ended: dict[str, tuple[float, Exception | None]] = {}
    written, writing = Heard(), anyio.Event()

    async def fail(name: str, asked: Callable[[Mapping[str, Any]], Awaitable[Heard]]) -> None:
        failure = await failure_of(lambda: asked(long_speech()))
        ended[name] = monotonic(), failure

    async def write() -> None:
        async for chunk in await served.open(body(request("text", GREEDY), max_completion_tokens=LONG)):
            written.take(chunk)
            if written.text:
                writing.set()

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail, "stream", served.streamed)
            tasks.start_soon(fail, "whole", served.whole)
            await served.until_live("qwen3-omni", "code2wav", 2)
            tasks.start_soon(write)
            await writing.wait()
            tasks.start_soon(served.mesh.until_ready_again)
            killed = monotonic()
            os.kill(served.mesh.supervisor.running()[talker], signal.SIGKILL)
            assert ended == {}
            assert written.finish is None
    assert {name: getattr(error, "code", error) for name, (_, error) in ended.items()} == {
        "stream": "stage_unavailable",
        "whole": "stage_unavailable",
    }
    assert all(at - killed < 2 for at, _ in ended.values())
    assert isinstance(ended["whole"][1], openai.InternalServerError)
    assert written.usage is not None
    assert (written.finish, written.usage.completion_tokens) == ("length", LONG)
    assert any(line.startswith(f"{talker} was ended by SIGKILL") for line in served.said)
    assert (await served.whole(spoken(request("text", GREEDY), "wav"))).speech
    await served.until_idle()
