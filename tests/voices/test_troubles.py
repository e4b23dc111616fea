"""A synthesiser and a recogniser that die under load: only their own requests hear of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import openai
import pytest
from tests.running import Running
from tests.voices.audio import MODEL, Speech
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
