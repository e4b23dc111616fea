"""POST /v1/audio/transcriptions on a mesh that listens: containers, forms, streams, long files, what is no speech."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import httpx2
import numpy as np
import openai
import psutil
import pytest
from numpy.typing import NDArray
from tests.running import Running
from tests.voices.audio import RATE, Speech, encoded, long_mp3

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MODEL = "whisper"
RECOGNISER = "whisper-transcribe-0"
WORDS = "where did you put the keys they were on the kitchen table"
# Container and codec by what the file is called.
RECORDINGS = {
    "a.wav": ("wav", "pcm_s16le", RATE),
    "a.mp3": ("mp3", "libmp3lame", RATE),
    "a.m4a": ("mp4", "aac", RATE),
    "a.webm": ("webm", "libopus", 48_000),
    "a.ogg": ("ogg", "libopus", 48_000),
    "a.flac": ("flac", "flac", RATE),
}


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z ]", " ", text.lower()).split())


def pcm(file: Path) -> NDArray[np.int16]:
    return Speech("wav", "", (file.read_bytes(),)).samples


@pytest.mark.parametrize("name", RECORDINGS)
async def test_every_container_is_heard(name: str, running: Running, question: Path) -> None:
    container, codec, rate = RECORDINGS[name]
    data = encoded(pcm(question), container, codec, rate=rate)
    reply = await running.client.audio.transcriptions.create(model=MODEL, file=(name, data))
    assert plain(reply.text) == WORDS
    assert reply.usage is not None
    assert reply.usage.type == "duration"
    assert reply.usage.seconds == pytest.approx(len(pcm(question)) / RATE, abs=0.15)


async def test_a_file_is_known_by_its_content_whatever_it_is_called(running: Running, question: Path) -> None:
    data = encoded(pcm(question), "mp3", "libmp3lame")
    reply = await running.client.audio.transcriptions.create(model=MODEL, file=("a.wav", data))
    assert plain(reply.text) == WORDS


async def test_verbose_json_tells_segments_and_words_in_time(running: Running, question: Path) -> None:
    reply = await running.client.audio.transcriptions.create(
        model=MODEL,
        file=question,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    seconds = len(pcm(question)) / RATE
    assert plain(reply.text) == WORDS
    assert float(reply.duration) == pytest.approx(seconds, abs=0.1)
    assert reply.segments is not None
    assert reply.words is not None
    assert plain("".join(segment.text for segment in reply.segments)) == WORDS
    assert [plain(word.word) for word in reply.words] == WORDS.split()
    times = [time for word in reply.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= seconds + 0.1
    starts = [segment.start for segment in reply.segments]
    assert starts == sorted(starts)
    assert [segment.id for segment in reply.segments] == list(range(len(reply.segments)))


async def test_text_srt_and_vtt_are_what_players_read(running: Running, question: Path) -> None:
    create = running.client.audio.transcriptions.with_raw_response.create
    text = (await create(model=MODEL, file=question, response_format="text")).text
    srt = (await create(model=MODEL, file=question, response_format="srt")).text
    vtt = (await create(model=MODEL, file=question, response_format="vtt")).text
    assert plain(text) == WORDS
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\S", srt)
    assert re.match(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\n\S", vtt)


async def test_a_stream_brings_segments_as_they_are_heard(running: Running, question: Path) -> None:
    whole = await running.client.audio.transcriptions.create(model=MODEL, file=question)
    stream = await running.client.audio.transcriptions.create(model=MODEL, file=question, stream=True)
    *deltas, done = [event async for event in stream]
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta").strip() == whole.text
    assert done.type == "transcript.text.done"
    assert done.text == whole.text


@pytest.mark.timeout(240)
async def test_an_hour_is_heard_in_order_and_in_bounded_memory(running: Running, question: Path) -> None:
    """Ten questions in an hour of silence; the whole would be 230 MB of samples."""
    spoken, every = pcm(question), 360
    tenth = np.zeros(every * RATE, np.int16)
    tenth[7 * RATE :][: len(spoken)] = spoken
    data = long_mp3(tenth, 10)
    processes = [psutil.Process(pid) for name, pid in running.mesh.supervisor.running().items() if "whisper" in name]
    before, peak = sum(p.memory_info().rss for p in processes), 0
    starts: list[float] = []
    text = ""

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, sum(p.memory_info().rss for p in processes))
            await anyio.sleep(0.2)  # a sample of another process's memory; there is nothing to wait for

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        reply = await running.client.audio.transcriptions.create(
            model=MODEL, file=("hour.mp3", data), response_format="verbose_json", timeout=120
        )
        text, starts = reply.text, [segment.start for segment in reply.segments or ()]
        tasks.cancel_scope.cancel()

    assert float(reply.duration) == pytest.approx(3600, abs=1)
    assert plain(text) == " ".join([WORDS] * 10)
    assert starts == sorted(starts)
    assert {round((start - 7) / every) for start in starts} == set(range(10))
    assert all(abs((start - 7) - every * round((start - 7) / every)) < 5 for start in starts)
    assert peak - before < 250 << 20


async def test_many_at_once_share_batches(running: Running, question: Path) -> None:
    sizes = r'^omni_stage_batch_size_(count|sum){stage="transcribe"} (\S+)$'
    before = {kind: float(n) for kind, n in re.findall(sizes, await running.metrics(RECOGNISER), re.M)}
    texts: list[str] = []

    async def listen() -> None:
        texts.append((await running.client.audio.transcriptions.create(model=MODEL, file=question)).text)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(listen)
    after = {kind: float(n) for kind, n in re.findall(sizes, await running.metrics(RECOGNISER), re.M)}
    assert [plain(text) for text in texts] == [WORDS] * 8
    assert after["sum"] - before["sum"] == 8  # windows; the ends of recordings are no work
    assert after["count"] - before["count"] < 8


async def test_who_leaves_frees_everything(running: Running, question: Path) -> None:
    await running.until_idle()
    long = np.tile(np.concatenate([pcm(question), np.zeros(RATE, np.int16)]), 40)
    data = encoded(long, "mp3", "libmp3lame")
    async with anyio.create_task_group() as callers:
        callers.start_soon(lambda: running.client.audio.transcriptions.create(model=MODEL, file=("long.mp3", data)))
        await running.until_live("whisper", "transcribe", 1)
        callers.cancel_scope.cancel()
    await running.until_idle()


async def test_who_leaves_while_silence_is_read_frees_everything(running: Running) -> None:
    """An hour in which nobody speaks keeps the first stage busy for many seconds, and no other."""
    await running.until_idle()
    data = await anyio.to_thread.run_sync(lambda: encoded(np.zeros(3600 * RATE, np.int16), "flac", "flac"))
    async with anyio.create_task_group() as callers:
        callers.start_soon(lambda: running.client.audio.transcriptions.create(model=MODEL, file=("h.flac", data)))
        await running.until_live("whisper", "preprocess", 1)
        callers.cancel_scope.cancel()
    await running.until_idle()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_a_model_that_cannot_translate_says_so(running: Running, question: Path) -> None:
    with pytest.raises(openai.BadRequestError, match="does no translation"):
        await running.client.audio.translations.create(model=MODEL, file=question)


def noise(seconds: int) -> NDArray[np.int16]:
    return (np.random.default_rng(7).standard_normal(seconds * RATE) * 3000).astype(np.int16)


def wav_with_rate(data: bytes, rate: int) -> bytes:
    """The same samples under a header that claims another rate."""
    return data[:24] + struct.pack("<I", rate) + data[28:]


def bomb() -> bytes:
    """A few megabytes of FLAC that would decode to nine hours."""
    return encoded(np.zeros(9 * 3600 * 8000, np.int16), "flac", "flac", rate=8000, source_rate=8000)


BAD: Mapping[str, tuple[Callable[[bytes], bytes], int]] = {
    "no bytes": (lambda wav: b"", 400),
    "no samples": (lambda wav: wav[:40] + bytes(4), 400),
    "a text": (lambda wav: b"Dear diary, today I was asked to pass for a recording. " * 20, 400),
    "a picture": (lambda wav: b"\x89PNG\r\n\x1a\n" + bytes(2000), 400),
    "silence": (lambda wav: encoded(np.zeros(5 * RATE, np.int16), "wav", "pcm_s16le"), 400),
    "noise": (lambda wav: encoded(noise(5), "wav", "pcm_s16le"), 400),
    "a WAV that was cut off": (lambda wav: wav[: len(wav) // 2], 400),
    "a FLAC that was cut off": (lambda wav: _cut(wav, "flac", "flac"), 400),
    "an M4A that was cut off": (lambda wav: _cut(wav, "mp4", "aac"), 400),
    "a rate of 1 Hz": (lambda wav: wav_with_rate(wav, 1), 400),
    "a rate of 4 GHz": (lambda wav: wav_with_rate(wav, 4_000_000_000), 400),
    "nine hours in a small file": (lambda wav: bomb(), 413),
    "more than a body may hold": (lambda wav: wav + bytes(33 << 20), 413),
}


def _cut(wav: bytes, container: str, codec: str) -> bytes:
    data = encoded(Speech("wav", "", (wav,)).samples, container, codec)
    return data[: len(data) // 2]


@pytest.mark.parametrize("bad", BAD)
async def test_what_is_no_speech_is_refused_and_disturbs_nobody(bad: str, running: Running, question: Path) -> None:
    make, status = BAD[bad]
    data = await anyio.to_thread.run_sync(lambda: make(question.read_bytes()))
    with anyio.fail_after(40):
        reply = await _post(running, data)
        beside = await running.client.audio.transcriptions.create(model=MODEL, file=question)
    error = reply.json()["error"]
    assert reply.status_code == status
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")
    if bad != "more than a body may hold":
        assert error["param"] == "file"
    assert plain(beside.text) == WORDS
    await running.until_idle()


async def _post(running: Running, data: bytes) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=40) as http:
        return await http.post(
            f"{running.mesh.url}/v1/audio/transcriptions", data={"model": MODEL}, files={"file": ("a.wav", data)}
        )


async def test_a_wrong_rate_that_is_possible_is_believed(running: Running, question: Path) -> None:
    """Nobody can tell; it is heard as it is played: half as fast."""
    data = await anyio.Path(question).read_bytes()
    reply = await _post(running, wav_with_rate(data, 12_000))
    assert reply.status_code == 200
    assert reply.json()["usage"]["seconds"] == pytest.approx(2 * len(pcm(question)) / RATE, abs=0.2)
