"""What the mesh costs a voice: `python -m tests.load.voices`.

The same texts spoken by the same ONNX model: in one process, sentence by sentence and text by text in a plain loop, and
by the mesh, asked over HTTP for all of them at once. Both compute with one thread, on the same machine, in turns within
each round. RTF is the time until the last text is spoken over the seconds of speech; first audio is the median over the
texts, counted from when all of them are asked for.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import anyio
import httpx2
import numpy as np
import onnxruntime as ort
from tests.load.mesh import HOST, Mesh, running_mesh
from tests.load.report import Series, machine, millis, table, times
from tests.voices.sentences import SENTENCES

from omni_cli.serving import choose
from omni_common.request import GenerationParams, GenerationRequest, Message, Modality, RequestKey, Role, Task, Text
from omni_stage.models.piper.components.preprocess import Preprocessor
from omni_stage.models.piper.components.voice import Voice, load_voice
from omni_stage.models.piper.payload_types import Sentence, expect
from omni_stage.scheduler.contract import NewRequest

FAMILY = "piper"
ROUNDS = 5
AT_ONCE = (1, 8, 32)
SENTENCES_EACH = 3
PCM_RATE = 24_000
DEADLINE = 900.0

LOOP, MESH = "plain loop", "mesh"


@dataclass(slots=True)
class Measured:
    """Of one way and one number of texts at once: seconds."""

    first: Series = field(default_factory=Series)
    total: Series = field(default_factory=Series)
    rtf: Series = field(default_factory=Series)

    def add(self, spoken: Spoken) -> None:
        self.first.add(spoken.first)
        self.total.add([spoken.total])
        self.rtf.add([spoken.total / spoken.audio])


@dataclass(frozen=True, slots=True)
class Spoken:
    """`first` has for each text when its first sound was there, `total` is when the last text was spoken, `audio` the
    length of all speech."""

    first: Sequence[float]
    total: float
    audio: float


def texts(count: int) -> list[str]:
    """Each its own, of three sentences."""
    return [
        " ".join(SENTENCES[(SENTENCES_EACH * number + at) % len(SENTENCES)] for at in range(SENTENCES_EACH))
        for number in range(count)
    ]


class PlainLoop:
    """The voice's own file, called as its authors do; text becomes phonemes as in the mesh."""

    def __init__(self, voice: Voice) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(voice.model, options, providers=["CPUExecutionProvider"])
        self._preprocessor = Preprocessor(voice)
        told = voice.told.inference
        self._scales = np.array([told.noise_scale, told.length_scale, told.noise_w], np.float32)
        self._rate = voice.sample_rate

    def speak(self, wanted: Sequence[str]) -> Spoken:
        first: list[float] = []
        samples, begun = 0, time.perf_counter()
        for number, text in enumerate(wanted):
            for sentence in self._preprocessor.sentences(_request(text)):
                samples += len(self._say(expect(sentence, Sentence))) // 2
                if len(first) == number:
                    first.append(time.perf_counter() - begun)
        return Spoken(first, time.perf_counter() - begun, samples / self._rate)

    def _say(self, sentence: Sentence) -> bytes:
        ids = np.frombuffer(sentence.ids.data, np.int16).astype(np.int64)[None]
        feed = {"input": ids, "input_lengths": np.array([ids.shape[1]], np.int64), "scales": self._scales}
        (audio,) = self._session.run(None, feed)
        pcm: bytes = (np.clip(audio.reshape(-1), -1, 1) * 32767).astype("<i2").tobytes()
        return pcm


class OverHttp:
    """The mesh, asked for raw samples."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def speak(self, wanted: Sequence[str]) -> Spoken:
        first: list[float] = []
        size, begun = 0, time.perf_counter()

        async def one(text: str) -> None:
            nonlocal size
            heard = False
            body = {"model": FAMILY, "input": text, "voice": "", "response_format": "pcm"}
            async with self._http.stream("POST", "/v1/audio/speech", json=body) as reply:
                reply.raise_for_status()
                async for piece in reply.aiter_bytes():
                    if piece and not heard:
                        heard = True
                        first.append(time.perf_counter() - begun)
                    size += len(piece)

        async with anyio.create_task_group() as tasks:
            for text in wanted:
                tasks.start_soon(one, text)
        return Spoken(first, time.perf_counter() - begun, size / 2 / PCM_RATE)


@asynccontextmanager
async def over_http(mesh: Mesh) -> AsyncIterator[OverHttp]:
    async with httpx2.AsyncClient(base_url=f"http://{HOST}:{mesh.port}", trust_env=False, timeout=300) as http:
        yield OverHttp(http)


async def measure() -> Mapping[int, Mapping[str, Measured]]:
    folder = _folder()
    loop = PlainLoop(load_voice(folder))
    measured = {number: {LOOP: Measured(), MESH: Measured()} for number in AT_ONCE}
    with anyio.fail_after(DEADLINE):
        async with running_mesh(FAMILY, folder) as mesh, over_http(mesh) as over:
            await over.speak(texts(4))
            await anyio.to_thread.run_sync(loop.speak, texts(1))
            for _ in range(ROUNDS):
                for number, ways in measured.items():
                    ways[LOOP].add(await anyio.to_thread.run_sync(loop.speak, texts(number)))
                    ways[MESH].add(await over.speak(texts(number)))
    return measured


def show(measured: Mapping[int, Mapping[str, Measured]]) -> str:
    rows = []
    for number, ways in measured.items():
        loop, mesh = ways[LOOP], ways[MESH]
        rows += [
            _row(f"{number} at once: RTF", loop.rtf, mesh.rtf, lambda value: f"{value:.3f}"),
            _row(f"{number} at once: first audio, ms", loop.first, mesh.first, millis),
            _row(f"{number} at once: all spoken, ms", loop.total, mesh.total, millis),
        ]
    return table(["", LOOP, MESH, "mesh to loop", "in each round"], rows)


def _row(name: str, loop: Series, mesh: Series, shown: Callable[[float], str]) -> list[str]:
    each = [times(median(m) / median(of)) for m, of in zip(mesh.rounds, loop.rounds, strict=True)]
    return [name, shown(loop.p50), shown(mesh.p50), times(mesh.ratio_to(loop)), " ".join(each)]


def _folder() -> Path:
    (served,) = choose((FAMILY,), ())
    if served.model is None:
        raise FileNotFoundError("The voice is not installed: make setup")
    return served.model


def _request(text: str) -> NewRequest:
    params = GenerationParams(frozenset({Modality.AUDIO}), task=Task.SPEECH)
    message = Message(Role.USER, (Text(text, "input"),))
    return NewRequest(RequestKey("loop"), params, GenerationRequest(FAMILY, (message,), params))


def main() -> None:
    print(f"Piper, texts of {SENTENCES_EACH} sentences, one thread (p50 of {ROUNDS} rounds). {machine()}.\n")
    print(show(anyio.run(measure, backend_options={"use_uvloop": True})))
    print("\nBar: all spoken at most 1.10x at 8 at once.")


if __name__ == "__main__":
    main()
