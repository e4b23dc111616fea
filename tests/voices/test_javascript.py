"""The official JavaScript client against the running mesh."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from tests.running import Running
from tests.voices.audio import Format, Speech, samples
from tests.voices.test_transcription import WORDS, plain

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SCRIPT = Path(__file__).parents[1] / "clients" / "voices.mjs"
TEXT = "Good morning. How can I help you today?"


async def call(running: Running, *arguments: str, expect: int = 0) -> Any:
    """What the script saw. Without Node this is skipped, except where a whole run is asked for."""
    node = shutil.which("node")
    if node is None or not (SCRIPT.parent / "node_modules" / "openai").is_dir():
        if os.environ.get("CI"):
            pytest.fail("the JavaScript client is not installed")
        pytest.skip("needs Node; `make test` then installs the client")
    command = [node, str(SCRIPT), f"{running.mesh.url}/v1", *arguments]
    with anyio.fail_after(50):
        done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
    assert done.returncode == expect, done.stdout.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["mp3", "pcm"])
async def test_it_streams_speech(form: Format, running: Running) -> None:
    seen = await call(running, "speech", "piper", TEXT, form)
    assert seen["type"] == {"mp3": "audio/mpeg", "pcm": "audio/pcm"}[form]
    assert seen["pieces"] > 1
    heard = samples(base64.b64decode(seen["audio"]), form)
    assert np.array_equal(heard, (await Speech.of(running.client, TEXT, form)).samples)


async def test_it_streams_speech_in_events(running: Running) -> None:
    seen = await call(running, "speech-events", "piper", TEXT, "opus")
    assert seen["type"].startswith("text/event-stream")
    assert seen["last"]["type"] == "speech.audio.done"
    heard = samples(base64.b64decode(seen["audio"]), "opus")
    assert np.array_equal(heard, (await Speech.of(running.client, TEXT, "opus")).samples)


async def test_it_streams_a_transcription(running: Running, question: Path) -> None:
    seen = await call(running, "transcribe", "whisper", str(question))
    *deltas, done = seen["events"]
    assert plain("".join(event["delta"] for event in deltas)) == WORDS
    assert done["type"] == "transcript.text.done"
    assert plain(done["text"]) == WORDS


async def test_it_gets_words_with_times(running: Running, question: Path) -> None:
    seen = await call(running, "transcribe-whole", "whisper", str(question))
    assert [plain(word["word"]) for word in seen["words"]] == WORDS.split()


async def test_it_hears_refusals(running: Running) -> None:
    seen = await call(running, "speech", "whisper", TEXT, "mp3", expect=1)
    assert (seen["error"]["status"], seen["error"]["param"]) == (400, "model")
    assert "these can: piper" in seen["error"]["message"]
