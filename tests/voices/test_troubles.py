"""A synthesiser and a recogniser that die under load: only their own requests hear of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import numpy as np
import openai
import pytest
from tests.running import Running
from tests.voices.audio import MODEL, RATE, Speech, encoded
from tests.voices.sentences import SENTENCES

from omni_common.clock import monotonic

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LONG = " ".join(SENTENCES)


async def test_a_killed_synthesiser_fails_its_requests_and_no_other(running: Running, question: Path) -> None:
    await running.until_idle()
    ended: dict[str, float] = {}
    heard: list[str] = []

    async def fail(name: str, ask: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises((openai.APIError, Exception)) as raised:
            await ask()
        ended[name] = monotonic()
        assert not isinstance(raised.value, AssertionError)

    async def events() -> None:
        """The failure is the stream's last event."""
        async with running.client.audio.speech.with_streaming_response.create(
            model=MODEL, input=LONG, voice="", stream_format="sse"
        ) as reply:
            lines = [line async for line in reply.iter_lines() if line]
        assert '"code":"stage_unavailable"' in lines[-1]
        raise openai.OpenAIError

    async def listen() -> None:
        heard.append((await running.client.audio.transcriptions.create(model="whisper", file=question)).text)

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail, "raw", lambda: Speech.streamed(running.client, LONG, "pcm"))
            tasks.start_soon(fail, "events", events)
            await running.until_live("piper-synthesise-0", 2)
            tasks.start_soon(listen)
            await running.until_live("whisper-transcribe-0", 1)
            tasks.start_soon(running.mesh.until_ready_again)
            killed = monotonic()
            os.kill(running.mesh.supervisor.running()["piper-synthesise-0"], signal.SIGKILL)
            assert ended == {}
    assert all(at - killed < 2 for at in ended.values())
    assert len(ended) == 2
    assert "kitchen" in heard[0]
    assert (await Speech.of(running.client, SENTENCES[0], "wav")).seconds > 1
    await running.until_idle()


async def test_a_killed_recogniser_fails_its_requests_and_no_other(running: Running, question: Path) -> None:
    await running.until_idle()
    spoken = Speech("wav", "", (await anyio.Path(question).read_bytes(),)).samples
    long = np.tile(np.concatenate([spoken, np.zeros(RATE, np.int16)]), 40)
    data = encoded(long, "mp3", "libmp3lame")
    failed: list[openai.APIStatusError] = []

    async def listen() -> None:
        with pytest.raises(openai.InternalServerError) as raised:
            await running.client.audio.transcriptions.create(model="whisper", file=("long.mp3", data))
        failed.append(raised.value)

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await running.until_live("whisper-transcribe-0", 1)
            tasks.start_soon(running.mesh.until_ready_again)
            os.kill(running.mesh.supervisor.running()["whisper-transcribe-0"], signal.SIGKILL)
            assert (await Speech.of(running.client, SENTENCES[0], "wav")).seconds > 1
    assert (failed[0].status_code, failed[0].code) == (503, "stage_unavailable")
    heard = await running.client.audio.transcriptions.create(model="whisper", file=question)
    assert "kitchen" in heard.text
    await running.until_idle()
