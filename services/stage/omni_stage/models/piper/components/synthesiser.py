"""The runner of synthesise: VITS by onnxruntime over a padded batch of sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from omni_common.request import AudioOutput, GenerationParams, RequestKey
from omni_common.tensor import DType, Tensor
from omni_stage.models.piper.callbacks import Speech
from omni_stage.models.piper.components.graph import DURATION_NOISE, LATENT_NOISE, Graph, load_graph
from omni_stage.models.piper.components.noise import Noise
from omni_stage.models.piper.components.phonemes import Alphabet
from omni_stage.models.piper.components.voice import Voice
from omni_stage.models.piper.payload_types import Sentence, expect
from omni_stage.program import StageContext
from omni_stage.scheduler.contract import NewRequest
from omni_stage.scheduler.stream_batch import Item

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
# Frames of noise for each phoneme id: an id lasts 2 to 2.4 frames in sentences, 3.6 in a single word. Beyond it the
# noise comes again from its start, which nobody hears but which then depends on the padding.
_FRAMES_PER_ID = 8
_PAD = 0
_LOUDEST = 32767
_WARM_UP = "hə"


class Synthesiser:
    """The voice's model in memory."""

    def __init__(self, voice: Voice, graph: Graph, session: ort.InferenceSession) -> None:
        self._voice = voice
        self._graph = graph
        self._session = session
        told = voice.told.inference
        self._scales = np.array([told.noise_scale, told.length_scale, told.noise_w], np.float32)

    @property
    def on_gpu(self) -> bool:
        return _CUDA in self._session.get_providers()

    def compute(self, batch: Sequence[Item[Speech]]) -> Sequence[Sequence[AudioOutput]]:
        sentences = [expect(item.chunk, Sentence) for item in batch]
        spoken = self.synthesise(sentences, [item.session.seed for item in batch])
        return [
            item.session.say(to_pcm(samples), phonemes=phonemes_in(sentence), frames=frames, pause=sentence.pause)
            for item, sentence, (samples, frames) in zip(batch, sentences, spoken, strict=True)
        ]

    def synthesise(
        self, sentences: Sequence[Sentence], seeds: Sequence[int]
    ) -> Sequence[tuple[npt.NDArray[np.float32], int]]:
        """Of each sentence its samples [n], and how many of the model's frames they are."""
        rows = [np.frombuffer(sentence.ids.data, np.int16) for sentence in sentences]
        audio, durations = self._session.run(self._graph.outputs, self._feed(sentences, rows, seeds))
        frames = np.maximum(1, durations.sum(axis=(1, 2)).astype(np.int64))
        per_frame = audio.shape[-1] // int(frames.max())
        return [(audio[at, 0, 0, : count * per_frame], int(count)) for at, count in enumerate(frames)]

    def warm_up(self) -> None:
        ids = Alphabet(self._voice).ids(_WARM_UP)
        sentence = Sentence(Tensor(DType.INT16, ids.shape, memoryview(ids.tobytes())), speaker=0, pause=False)
        session = Speech(NewRequest(RequestKey("warm-up"), GenerationParams(), None), self._voice.sample_rate)
        self.compute([Item(session, sentence, 0)])

    def _feed(
        self, sentences: Sequence[Sentence], rows: Sequence[npt.NDArray[np.int16]], seeds: Sequence[int]
    ) -> dict[str, npt.NDArray[np.generic]]:
        longest = max(map(len, rows))
        frames = math.ceil(longest * _FRAMES_PER_ID * max(1.0, self._voice.told.inference.length_scale))
        noises = [Noise(seed, s.speaker, row) for seed, s, row in zip(seeds, sentences, rows, strict=True)]
        feed: dict[str, npt.NDArray[np.generic]] = {
            "input": np.stack(
                [np.pad(row.astype(np.int64), (0, longest - len(row)), constant_values=_PAD) for row in rows]
            ),
            "input_lengths": np.array([len(row) for row in rows], np.int64),
            "scales": self._scales,
            DURATION_NOISE: np.stack([noise.durations(longest) for noise in noises]),
            LATENT_NOISE: np.stack([noise.latents(frames, self._graph.channels) for noise in noises]),
        }
        if self._graph.takes_speaker:
            feed["sid"] = np.array([sentence.speaker for sentence in sentences], np.int64)
        return feed


def open_synthesiser(voice: Voice, context: StageContext) -> Synthesiser:
    """Raises ValueError with a sentence when the model is not a Piper voice or the device is not there."""
    context.progress(0, 1)
    graph = load_graph(voice.model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = context.threads
    options.log_severity_level = _ERRORS_ONLY
    # Threads that wait for work at a spin take the cores from the other stages of a machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph.model, options, providers=_providers(context.device))
    context.progress(1, 1)
    return Synthesiser(voice, graph, session)


def to_pcm(samples: npt.NDArray[np.float32]) -> bytes:
    """Signed 16-bit little-endian; what is too loud is cut off, what is no number is silence."""
    whole = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    return (np.clip(whole, -1.0, 1.0) * _LOUDEST).astype("<i2").tobytes()


def phonemes_in(sentence: Sentence) -> int:
    return int(np.count_nonzero(np.frombuffer(sentence.ids.data, np.int16) != _PAD))


def _providers(device: str) -> list[str | tuple[str, dict[str, int]]]:
    """CUDA where it is asked for, or where there is one and nothing is asked for."""
    has_cuda = _CUDA in ort.get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cuda" and not has_cuda:
        raise ValueError("A Piper voice on a GPU needs the package onnxruntime-gpu in place of onnxruntime.")
    if kind == "cuda" or (kind == "auto" and has_cuda):
        return [(_CUDA, {"device_id": int(number or 0)}), _CPU]
    return [_CPU]
