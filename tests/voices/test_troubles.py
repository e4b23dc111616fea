"""A synthesiser and a recogniser that die under load: only their own requests hear of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Literal

import anyio
import httpx2
import numpy as np
import openai
import pytest
from tests.running import Running, failure_of
from tests.voices.audio import MODEL, RATE, Speech, encoded
from tests.voices.sentences import SENTENCES

from omni_common.clock import monotonic

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LONG = " ".join(SENTENCES)


async def test_a_killed_synthesiser_fails_its_requests_and_no_other(running: Running, question: Path) -> None:
    await running.until_idle()
    ended: dict[str, float] = {}
    begun = {"audio": anyio.Event(), "sse": anyio.Event()}
    failures: dict[str, Exception | None] = {}
    heard: list[str] = []
    lines: list[str] = []

    async def say(form: Literal["audio", "sse"]) -> None:
        async with running.client.audio.speech.with_streaming_response.create(
            model=MODEL, input=LONG, voice="", response_format="pcm", stream_format=form
        ) as reply:
            async for line in reply.iter_lines() if form == "sse" else reply.iter_bytes():
                begun[form].set()
                lines.extend([line] if isinstance(line, str) and line else [])

    async def fail(form: Literal["audio", "sse"]) -> None:
        failures[form] = await failure_of(lambda: say(form))
        ended[form] = monotonic()

    async def listen() -> None:
        heard.append((await running.client.audio.transcriptions.create(model="whisper", file=question)).text)

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail, "audio")
            tasks.start_soon(fail, "sse")
            await begun["audio"].wait()
            await begun["sse"].wait()
            tasks.start_soon(listen)
            await running.until_live("whisper", "transcribe", 1)
            tasks.start_soon(running.mesh.until_ready_again)
            killed = monotonic()
            os.kill(running.mesh.supervisor.running()["piper-synthesise-0"], signal.SIGKILL)
            assert ended == {}
    assert all(at - killed < 2 for at in ended.values())
    assert len(ended) == 2
    # A file can say nothing but by being cut off; a stream of events says it in its last one.
    assert isinstance(failures["audio"], openai.APIError | httpx2.TransportError)
    assert failures["sse"] is None
    assert '"code":"stage_unavailable"' in lines[-1]
    assert "kitchen" in heard[0]
    assert (await Speech.of(running.client, SENTENCES[0], "wav")).seconds > 1
    await running.until_idle()


async def test_a_killed_recogniser_fails_its_requests_and_no_other(running: Running, question: Path) -> None:
    await running.until_idle()
    spoken = Speech("wav", "", (await anyio.Path(question).read_bytes(),)).samples
    long = np.tile(np.concatenate([spoken, np.zeros(RATE, np.int16)]), 40)
    data = encoded(long, "mp3", "libmp3lame")
    failed: list[Exception | None] = []

    async def listen() -> None:
        ask = running.client.audio.transcriptions.create
        failed.append(await failure_of(lambda: ask(model="whisper", file=("long.mp3", data))))

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await running.until_live("whisper", "transcribe", 1)
            tasks.start_soon(running.mesh.until_ready_again)
            os.kill(running.mesh.supervisor.running()["whisper-transcribe-0"], signal.SIGKILL)
            assert (await Speech.of(running.client, SENTENCES[0], "wav")).seconds > 1
    assert isinstance(failed[0], openai.InternalServerError)
    assert (failed[0].status_code, failed[0].code) == (503, "stage_unavailable")
    heard = await running.client.audio.transcriptions.create(model="whisper", file=question)
    assert "kitchen" in heard.text
    await running.until_idle()
