"""`omni verify` as a real process, at a real gateway in front of a scripted coordinator."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import anyio
import numpy as np
import pytest
from tests.integration.gateway_mesh import Mesh, mesh
from tests.integration.gateway_process import MODEL, gateway_process
from tests.unit.relay.wire.authority import Authority

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import StageFailed
from omni_common.request import AudioOutput, Modality, Segment, Task, TextOutput, Usage
from omni_common.testing.scripts import Admit, Finish, Step, pipeline_status

pytestmark = pytest.mark.anyio

OMNI = pipeline_status("omni")
PIPER = pipeline_status("piper", voices=("joe",), tasks=(Task.SPEECH,), makes=(Modality.AUDIO,), stages=("voice",))
WHISPER = pipeline_status(
    "whisper",
    voices=(),
    tasks=(Task.TRANSCRIPTION,),
    takes=(Modality.AUDIO,),
    makes=(Modality.TEXT,),
    stages=("recogniser",),
)
TEXT_ONLY = pipeline_status("writer", takes=(Modality.TEXT,), makes=(Modality.TEXT,))
RATE = 24_000
TONE = (np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) * 20_000).astype("<i2").tobytes()
SOUND = AudioOutput(TONE, RATE)
SILENCE = AudioOutput(bytes(len(TONE)), RATE)
WORDS = TextOutput("I am fine.")
HEARD = Segment(0.0, 1.5, " Good morning, how can I help you today?", "en")


async def verify(url: str, *options: str) -> tuple[int, list[str], str]:
    """Exit code, lines, and what standard error says. As in a pod with a read-only root and no home."""
    command = [sys.executable, "-m", "omni_cli", "verify", url, *options]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    with anyio.fail_after(40):
        done = await anyio.run_process(command, env=environment, cwd="/", check=False, stderr=subprocess.PIPE)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def url(here: Mesh) -> str:
    return f"http://127.0.0.1:{here.port}"


async def outcome(
    pipeline: pb.PipelineStatus, *script: Step, asked: int = 1, options: tuple[str, ...] = ()
) -> tuple[int, str, str]:
    """Of a mesh with one model that answers so each time that it is asked."""
    async with mesh(pipeline) as here:
        for _ in range(asked):
            here.coordinator.script(*script)
        code, lines, said = await verify(url(here), *options)
    (line,) = lines
    return code, line, said


async def test_a_model_that_talks_hears_the_utterance_and_answers_by_voice() -> None:
    async with mesh(OMNI) as here:
        answer = here.coordinator.script(Admit(), WORDS, SOUND, Finish())
        code, lines, said = await verify(f"{url(here)}/v1")
    assert (code, said) == (0, "")
    (line,) = lines
    assert line.startswith("omni chat: ok; first text 0.")
    assert "1.00 s of audio, RTF 0." in line
    assert line.endswith("-7 dBFS")
    assert answer.request is not None
    (message,) = answer.request.messages
    assert [type(part).__name__ for part in message.parts] == ["Media"]


async def test_speech_transcription_and_text_have_their_own_trials() -> None:
    code, line, _ = await outcome(PIPER, Admit(), SOUND, Finish())
    assert (code, line.split(";")[0]) == (0, "piper speech: ok")
    code, line, _ = await outcome(WHISPER, Admit(), HEARD, Finish(usage=Usage(prompt_audio_seconds=1.8)))
    assert code == 0
    assert line.startswith("whisper transcription: ok; first text 0.")
    assert line.endswith("8 words heard, 0 of 8 wrong")
    code, line, _ = await outcome(TEXT_ONLY, Admit(), WORDS, Finish())
    assert code == 0
    assert "audio" not in line


@pytest.mark.parametrize(
    ("pipeline", "script", "sentence"),
    [
        pytest.param(OMNI, (Admit(), WORDS, Finish()), "No audio came.", id="mute"),
        pytest.param(OMNI, (Admit(), SOUND, Finish()), "No text came.", id="wordless"),
        pytest.param(OMNI, (Admit(), WORDS, SILENCE, Finish()), "The audio is silent", id="silent"),
        pytest.param(OMNI, (Admit(), StageFailed("Stage 'talker' failed.")), "Stage 'talker' failed.", id="refused"),
        pytest.param(PIPER, (Admit(), AudioOutput(TONE[:480], RATE), Finish()), "Only 0.01 s of audio", id="a click"),
        pytest.param(WHISPER, (Admit(), Finish()), "No text came.", id="deaf"),
    ],
)
async def test_what_is_wrong_is_said_in_a_sentence(
    pipeline: pb.PipelineStatus, script: tuple[Step, ...], sentence: str
) -> None:
    code, line, said = await outcome(pipeline, *script, asked=3 if pipeline is PIPER else 1)
    assert (code, said) == (1, "1 of 1 trials failed.\n")
    assert ": FAILED: " in line
    assert sentence in line


async def test_a_model_that_never_ends_does_not_hang_it() -> None:
    code, line, _ = await outcome(OMNI, Admit(), WORDS, anyio.Event(), options=("--timeout", "1s"))
    assert (code, line) == (1, "omni chat: FAILED: It was not done in 1 s.")


async def test_one_that_is_not_ready_is_not_asked() -> None:
    code, line, _ = await outcome(pipeline_status("omni", ready=False), asked=0)
    assert code == 1
    assert line.startswith("omni ready: FAILED: A stage of it is not ready")


async def test_every_model_is_tried_and_one_that_fails_does_not_spare_the_next() -> None:
    async with mesh(PIPER, WHISPER) as here:
        for _ in range(3):
            here.coordinator.script(Admit(), SILENCE, Finish())
        here.coordinator.script(Admit(), HEARD, Finish())
        code, lines, said = await verify(url(here))
        assert (code, said) == (1, "1 of 2 trials failed.\n")
        assert [line.split(";")[0].split(": ")[:2] for line in lines] == [
            ["piper speech", "FAILED"],
            ["whisper transcription", "ok"],
        ]
        here.coordinator.script(Admit(), HEARD, Finish())
        code, lines, said = await verify(url(here), "--model", "whisper")
        assert (code, len(lines), said) == (0, 1, "")
        assert await verify(url(here), "--model", "gpt") == (
            1,
            [],
            "The mesh serves no model gpt; it serves piper, whisper.\n",
        )


async def test_where_nobody_answers_it_says_so() -> None:
    code, lines, said = await verify("http://127.0.0.1:1")
    assert (code, lines) == (1, [])
    assert said.startswith("No mesh answers at http://127.0.0.1:1/v1.")
    assert await verify("http://127.0.0.1:1", "--timeout", "soon") == (
        1,
        [],
        "--timeout soon is not a duration such as 30s, 500ms or 2m.\n",
    )


async def test_it_trusts_the_ca_and_shows_the_key_that_it_is_given(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ca").issue("localhost")
    foreign = Authority(tmp_path, "foreign")
    (tmp_path / "key").write_text("sesame\n")
    (tmp_path / "no-key").write_bytes(b"\xff\n")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": {"me": {"sha256": sha256(b"sesame").hexdigest()}}}))
    settings = {"HTTPS_CERT": files.cert, "HTTPS_KEY": files.key, "API_KEYS": tmp_path / "keys.json"}
    async with gateway_process(**settings) as here:
        base = f"https://localhost:{here.port}"
        here.coordinator.script(Admit(), WORDS, SOUND, Finish())
        here.coordinator.script(Admit(), SOUND, Finish())
        code, lines, said = await verify(base, f"--ca={files.ca}", f"--api-key-file={tmp_path / 'key'}")
        assert (code, said) == (0, ""), lines
        assert [line.split(";")[0] for line in lines] == [f"{MODEL} chat: ok", f"{MODEL} speech: ok"]
        code, lines, said = await verify(base, f"--ca={files.ca}")
        assert (code, lines) == (1, [])
        assert said == "The mesh asks for an API key. Name yours by OMNI_API_KEY.\n"
        _, _, said = await verify(base, f"--ca={foreign.ca}")
        assert said.startswith(f"The certificate of {base}/v1 is not trusted: ")
        _, _, said = await verify(base, f"--api-key-file={tmp_path / 'no-key'}")
        assert said == f"{tmp_path / 'no-key'} holds no API key: it is no text.\n"
        _, _, said = await verify(base, f"--ca={tmp_path / 'key'}")
        assert said == f"{tmp_path / 'key'} holds no certificate in PEM.\n"


async def test_it_believes_a_certificate_for_another_name_only_when_it_is_told_that_name(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ca").issue("chat.example.com")
    async with gateway_process(HTTPS_CERT=files.cert, HTTPS_KEY=files.key) as here:
        base = f"https://localhost:{here.port}"
        here.coordinator.script(Admit(), WORDS, SOUND, Finish())
        here.coordinator.script(Admit(), SOUND, Finish())
        code, lines, said = await verify(base, f"--ca={files.ca}", "--server-name=chat.example.com")
        assert (code, said) == (0, ""), lines
        for options in ((), ("--server-name=example.com",)):
            code, lines, said = await verify(base, f"--ca={files.ca}", *options)
            assert (code, lines) == (1, [])
            assert said.startswith(f"The certificate of {base}/v1 is not trusted: ")


def test_the_utterance_is_the_tests_own() -> None:
    ours = Path(__file__).parents[1] / "media" / "greeting.wav"
    theirs = Path(__file__).parents[2] / "services/cli/omni_cli/verify/utterance.wav"
    assert ours.read_bytes() == theirs.read_bytes()
