"""`omni speak` and `omni transcribe` at a real gateway in front of a scripted coordinator."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import av
import numpy as np
import pytest
from tests.integration.gateway_mesh import Mesh, mesh
from tests.integration.gateway_process import write_keys

from omni_cli.chat import chat
from omni_cli.conversation import Question, open_client
from omni_cli.errors import CommandError
from omni_cli.models import list_models
from omni_cli.served import model_for
from omni_cli.speak import Script, speak, text_or_stdin
from omni_cli.transcribe import Recording, transcribe
from omni_cli.wishes import Form
from omni_common.errors import StageFailed
from omni_common.request import AudioOutput, Modality, Role, Segment, Task, TextOutput, Usage, Word
from omni_common.testing.scripts import Admit, Finish, Step, pipeline_status

pytestmark = pytest.mark.anyio

PIPER = pipeline_status("piper", voices=("joe",), tasks=(Task.SPEECH,), makes=(Modality.AUDIO,), stages=("voice",))
WHISPER = pipeline_status(
    "whisper",
    voices=(),
    tasks=(Task.TRANSCRIPTION, Task.TRANSLATION),
    takes=(Modality.AUDIO,),
    makes=(Modality.TEXT,),
    stages=("recogniser",),
)
OMNI = pipeline_status("omni", tasks=tuple(Task))
RATE = 24_000
TONE = (np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) * 20_000).astype("<i2").tobytes()
PIECES = [AudioOutput(TONE[i : i + 4_800], RATE) for i in range(0, len(TONE), 4_800)]
SPOKEN: tuple[Step, ...] = (Admit(), *PIECES, Finish())
SEGMENTS = (
    Segment(0.0, 1.5, " Hello there.", "en", words=(Word(" Hello", 0.1, 0.5),)),
    Segment(1.5, 3.0, " How are you?", "en"),
)
ANSWERED: tuple[Step, ...] = (Admit(), TextOutput("Hello"), *PIECES, Finish())
HEARD: tuple[Step, ...] = (Admit(), *SEGMENTS, Finish(usage=Usage(prompt_audio_seconds=3.0)))


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def url(here: Mesh) -> str:
    return f"http://127.0.0.1:{here.port}/v1"


async def say(here: Mesh, output: Path, *, voice: str = "", speed: float = 1.0) -> None:
    await speak(Script("Hello.", voice, speed), output, url=url(here), model=None)


async def answer(here: Mesh, output: Path) -> None:
    await chat(Question("Hi"), url=url(here), model=None, speak=output, timings=False)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    file = tmp_path / "question.wav"
    file.write_bytes(b"RIFF\x24\0\0\0WAVEfmt " + bytes(64))
    return Recording(file)


async def write_down(
    here: Mesh, recording: Recording, form: Form = "text", *, words: bool = False, translate: bool = False
) -> None:
    await transcribe(recording, form=form, words=words, translate=translate, url=url(here), model=None)


@pytest.mark.parametrize("ending", ["wav", "pcm", "mp3", "opus", "ogg", "flac", "AAC"])
async def test_the_ending_of_the_file_s_name_chooses_its_format(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"said.{ending}"
    async with mesh(PIPER) as here:
        here.coordinator.script(*SPOKEN)
        await say(here, output)
    data = output.read_bytes()
    assert files(tmp_path) == [output.name]
    assert seconds(data, ending) == pytest.approx(1, abs=0.09)
    what = "1.0 s of speech are" if ending in {"wav", "pcm"} else "The speech is"
    assert capsys.readouterr().out.startswith(f"{what} in {output}; the first sound came after 0.")


def seconds(data: bytes, ending: str) -> float:
    if ending == "pcm":
        return len(data) / (2 * RATE)
    with av.open(io.BytesIO(data)) as file:
        assert file.format.name == {"opus": "ogg"}.get(ending, ending.lower())
        return sum(float(frame.samples / frame.sample_rate) for frame in file.decode(audio=0))


@pytest.mark.parametrize("ending", ["wav", "pcm", "mp3", "opus", "ogg", "flac", "AAC"])
async def test_an_answer_is_kept_in_the_same_formats(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"said.{ending}"
    async with mesh(OMNI) as here:
        here.coordinator.script(*ANSWERED)
        await answer(here, output)
    assert files(tmp_path) == [output.name]
    assert seconds(output.read_bytes(), ending) == pytest.approx(1, abs=0.09)
    what = "1.0 s of speech are" if ending in {"wav", "pcm"} else "The speech is"
    assert capsys.readouterr().out == f"Hello\n{what} in {output}\n"


@pytest.mark.parametrize("ask", [("speak", "Hello.", "-o"), ("chat", "Hello.", "--speak")])
async def test_a_disk_without_room_is_told_and_no_part_of_a_file_is_left(tmp_path: Path, ask: tuple[str, ...]) -> None:
    async with mesh(OMNI) as here:
        here.coordinator.script(*ANSWERED)
        asked = shlex.join([sys.executable, "-m", "omni_cli", *ask, str(tmp_path / "said.wav"), "--url", url(here)])
        with anyio.fail_after(20):
            done = await anyio.run_process(["bash", "-c", f"ulimit -f 8; exec {asked}"], check=False)
    assert (done.returncode, done.stderr.decode()) == (1, f"Cannot write {tmp_path / 'said.wav'}: File too large.\n")
    assert files(tmp_path) == []


@pytest.mark.parametrize("ask", [("chat",), ("transcribe",)])
@pytest.mark.parametrize(
    ("to", "code", "told"),
    [(">/dev/full", 1, "Cannot write to standard output: No space left on device.\n"), ("| true", 141, "")],
)
async def test_an_output_that_is_full_or_closed_is_no_traceback(
    tmp_path: Path, recording: Recording, ask: tuple[str, ...], to: str, code: int, told: str
) -> None:
    async with mesh(OMNI) as here:
        here.coordinator.script(*(HEARD if ask == ("transcribe",) else ANSWERED))
        asked = shlex.join([sys.executable, "-m", "omni_cli", *ask, str(recording.file), "--url", url(here)])
        with anyio.fail_after(20):
            done = await anyio.run_process(["bash", "-c", f"{asked} {to}; exit ${{PIPESTATUS[0]}}"], check=False)
    assert (done.returncode, done.stderr.decode()) == (code, told)


async def test_a_mesh_that_asks_for_a_key_is_told_apart_from_a_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.json"
    write_keys(keys, {"right": {"name": "me"}})
    async with mesh(PIPER, api_keys=keys) as here:
        with pytest.raises(CommandError, match=r"^The mesh asks for an API key\. Name yours by OMNI_API_KEY\.$"):
            await list_models(url(here), named=True)
        monkeypatch.setenv("OMNI_API_KEY", "wrong")
        with pytest.raises(CommandError, match=r"^The mesh does not know the API key that it was given\.$"):
            await list_models(url(here), named=True)


async def test_a_wav_file_tells_its_length(tmp_path: Path) -> None:
    async with mesh(PIPER) as here:
        here.coordinator.script(*SPOKEN)
        await say(here, tmp_path / "said.wav")
    with wave.open(str(tmp_path / "said.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, RATE)
        assert file.readframes(RATE) == TONE


async def test_voice_and_speed_are_asked_for(tmp_path: Path) -> None:
    async with mesh(PIPER) as here:
        answer = here.coordinator.script(*SPOKEN)
        await say(here, tmp_path / "said.pcm", voice="JOE", speed=2)
    assert answer.request is not None
    assert answer.request.params.voice == "joe"
    assert len((tmp_path / "said.pcm").read_bytes()) == len(TONE) // 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("said.txt", r"must end in one of \.wav, \.pcm"),
        ("nowhere/said.wav", "there is no folder .*nowhere"),
        ("folder.wav", r"Cannot write .*folder\.wav: it is a folder\."),
    ],
)
async def test_nothing_is_asked_for_where_nothing_could_be_written(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    async with mesh(OMNI) as here:  # a submit that nobody scripted would fail the test
        with pytest.raises(CommandError, match=sentence):
            await say(here, tmp_path / name)
        with pytest.raises(CommandError, match=sentence):
            await answer(here, tmp_path / name)
    assert files(tmp_path) == ["folder.wav"]


async def test_a_refusal_is_told_as_the_mesh_says_it(tmp_path: Path) -> None:
    async with mesh(PIPER) as here:
        with pytest.raises(CommandError, match=r"The mesh refused: .*'piper' has no such voice; it has joe"):
            await say(here, tmp_path / "said.wav", voice="nobody")
        here.coordinator.script(Admit(), StageFailed("voice"))
        with pytest.raises(CommandError, match=r"The mesh refused: .*voice"):
            await say(here, tmp_path / "said.wav")
    assert files(tmp_path) == []


@pytest.mark.parametrize("ending", ["wav", "mp3"])
async def test_a_mesh_that_breaks_off_leaves_the_file_of_before(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"said.{ending}"
    output.write_bytes(b"of before")
    async with mesh(PIPER) as here, anyio.create_task_group() as tasks:
        here.coordinator.script(Admit(), *PIECES[:5], gate := anyio.Event(), StageFailed("voice"))
        tasks.start_soon(open_when, tmp_path / f".said.{ending}.partial", gate)
        with pytest.raises(CommandError, match=r"The mesh broke off in the middle of its answer\."):
            await say(here, output)
    assert files(tmp_path) == [output.name]
    assert output.read_bytes() == b"of before"


async def open_when(there: Path, gate: anyio.Event) -> None:
    """The file system tells nobody, so it is asked."""
    with anyio.fail_after(15):
        while True:
            if there.name in files(there.parent):
                break
            await anyio.sleep(0.01)
    gate.set()


async def test_nobody_at_the_url_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"No mesh answers at .* Start one with `omni up`"):
        await speak(Script("Hello."), tmp_path / "said.wav", url="http://127.0.0.1:1/v1", model="piper")


@asynccontextmanager
async def command(*arguments: str | Path) -> AsyncIterator[anyio.abc.Process]:
    async with await anyio.open_process(
        [sys.executable, "-m", "omni_cli", *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def test_ctrl_c_leaves_no_part_of_a_file_and_cancels_the_request(tmp_path: Path) -> None:
    async with mesh(PIPER) as here:
        answer = here.coordinator.script(Admit(), *PIECES[:5], anyio.Event())
        async with command("speak", "Hello.", "-o", tmp_path / "said.wav", "--url", url(here)) as process:
            await open_when(tmp_path / ".said.wav.partial", anyio.Event())
            process.send_signal(signal.SIGINT)
            with anyio.fail_after(10):
                assert await process.wait() == 130
                await answer.cancelled.wait()
    assert files(tmp_path) == []


def test_text_is_read_from_standard_input_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße.\n".encode()), "utf-8"))
    assert (text_or_stdin("-"), text_or_stdin("Hello.")) == ("Grüße.", "Hello.")


@pytest.mark.parametrize("text", ["-", "\udcff"])
def test_what_is_no_text_is_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8"))
    with pytest.raises(CommandError, match=r"The text is not UTF-8\."):
        text_or_stdin(text)


async def test_text_is_shown_as_it_is_heard(recording: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    async with mesh(WHISPER) as here, anyio.create_task_group() as tasks:
        here.coordinator.script(Admit(), SEGMENTS[0], gate := anyio.Event(), SEGMENTS[1], Finish())
        tasks.start_soon(write_down, here, recording)
        with anyio.fail_after(10):
            while True:
                if shown := capsys.readouterr().out:
                    break
                await anyio.sleep(0.01)
        gate.set()
    assert (shown, capsys.readouterr().out) == ("Hello there.", " How are you?\n")


@pytest.mark.parametrize("translate", [False, True])
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_every_form_is_printed_as_it_came(
    recording: Recording, translate: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: dict[str, str] = {}
    forms: tuple[Form, ...] = ("text", "json", "srt", "vtt", "verbose_json")
    async with mesh(WHISPER) as here:
        for form in forms:
            answer = here.coordinator.script(*HEARD)
            await write_down(here, recording, form, translate=translate)
            printed[form] = capsys.readouterr().out
            assert answer.request is not None
            assert answer.request.params.task is (Task.TRANSLATION if translate else Task.TRANSCRIPTION)
    assert printed["text"] == "Hello there. How are you?\n"
    assert json.loads(printed["json"])["text"] == "Hello there. How are you?"
    assert printed["srt"].startswith("1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n")
    assert printed["vtt"].startswith("WEBVTT\n\n00:00:00.000")
    assert [s["text"] for s in json.loads(printed["verbose_json"])["segments"]] == [" Hello there.", " How are you?"]


async def test_what_is_known_of_a_recording_and_wanted_reaches_the_mesh(
    recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Recording(recording.file, language="en", prompt="Names: Ada.")
    async with mesh(WHISPER) as here:
        answers = [here.coordinator.script(*HEARD) for _ in range(2)]
        await write_down(here, known)
        capsys.readouterr()
        await write_down(here, known, "verbose_json", words=True)
    for answer, words in zip(answers, (False, True), strict=True):
        assert answer.request is not None
        assert [message.role for message in answer.request.messages] == [Role.SYSTEM, Role.USER]
        assert (answer.request.params.language, answer.request.params.word_times) == ("en", words)
    assert [w["word"] for w in json.loads(capsys.readouterr().out)["words"]] == ["Hello"]


@pytest.mark.parametrize(
    ("known", "options", "sentence"),
    [
        ({}, {"words": True}, r"verbose_json only: give --format verbose_json too\."),
        ({}, {"words": True, "form": "verbose_json", "translate": True}, "A translation has no times of words"),
        ({"language": "fr"}, {"translate": True}, "leave out --language or --translate"),
        ({"file": Path("missing.wav")}, {}, r"Cannot read missing\.wav: No such file or directory\."),
    ],
)
async def test_options_that_would_be_ignored_and_files_that_are_not_there_are_told(
    recording: Recording, known: dict[str, object], options: dict[str, object], sentence: str
) -> None:
    given = Recording(**{"file": recording.file, **known})  # type: ignore[arg-type]
    wanted = {"form": "text", "words": False, "translate": False, **options}
    with pytest.raises(CommandError, match=sentence):
        await transcribe(given, url="http://127.0.0.1:1/v1", model=None, **wanted)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("translate", [False, True])
async def test_no_transcript_commands_the_terminal_and_every_script_is_shown(
    recording: Recording, translate: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mesh(WHISPER) as here:
        text = " Oui\u00a0? می\u200cخواهم \x1b[2J\x9b31m\x7f"
        here.coordinator.script(Admit(), Segment(0, 1, text, "fa"), Finish())
        await write_down(here, recording, translate=translate)
    assert capsys.readouterr().out == "Oui\u00a0? می\u200cخواهم ·[2J·31m·\n"


async def test_a_failure_in_the_middle_of_a_transcript_is_told(
    recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mesh(WHISPER) as here:
        here.coordinator.script(Admit(), SEGMENTS[0], StageFailed("recogniser"))
        with pytest.raises(CommandError, match=r"The mesh refused: .*recogniser"):
            await write_down(here, recording)
    assert capsys.readouterr().out in {"", "Hello there."}


async def test_a_model_that_is_made_for_the_task_is_preferred() -> None:
    async with mesh(PIPER, WHISPER, OMNI) as here, open_client(url(here)) as client:
        chosen = {task: await model_for(client, task) for task in Task}
    assert chosen == {
        Task.CHAT: "omni",
        Task.SPEECH: "piper",
        Task.TRANSCRIPTION: "whisper",
        Task.TRANSLATION: "whisper",
    }


async def test_a_task_that_no_model_does_is_told(recording: Recording) -> None:
    async with mesh(PIPER) as here:
        with pytest.raises(CommandError, match=r"The mesh serves no model that does transcription\."):
            await write_down(here, recording)
