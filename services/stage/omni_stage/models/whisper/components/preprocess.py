"""The preprocess stage: an encoded recording becomes windows with speech, as the encoder takes them.

Decoding, finding speech and the spectrogram go on a window at a time, and only as far ahead as the recogniser lets
them: an hour of sound takes the memory of a minute.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from inspect import signature
from pathlib import Path

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.vad import VadOptions, get_speech_timestamps

from omni_common.errors import InvalidRequest
from omni_common.request import GenerationRequest
from omni_common.tensor import DType, Tensor
from omni_stage.media import MediaBudget, audio_blocks
from omni_stage.models.whisper.components.windows import Cutting, Samples, Span, cut
from omni_stage.models.whisper.config import SAMPLE_RATE, WINDOW_SECONDS
from omni_stage.models.whisper.payload_types import End, Silence, Window, expect
from omni_stage.models.whisper.request_builders import recording
from omni_stage.scheduler.contract import NewRequest

# Four hours: a meeting of half a day.
BUDGET = MediaBudget(max_seconds=4 * 3600, max_wall=300)

_CUTTING = Cutting(window=WINDOW_SECONDS * SAMPLE_RATE, margin=int(0.4 * SAMPLE_RATE))
# As in faster-whisper's own batched pipeline, but that a click is no speech. `_CUTTING` adds the margins.
_SPEECH = VadOptions(min_speech_duration_ms=100, min_silence_duration_ms=160, speech_pad_ms=0)


class Preprocessor:
    """Opens recordings; it keeps nothing of them."""

    def __init__(self, folder: Path, languages: Collection[str], budget: MediaBudget = BUDGET) -> None:
        self._features = load_feature_extractor(folder)
        self._languages = languages
        self._budget = budget

    def pieces(self, request: NewRequest) -> Iterator[Window | Silence | End]:
        """The windows and silences of the request's recording, in order, then its end.

        Raises InvalidRequest, also when nobody speaks in it, and OmniError REQUEST_TOO_LARGE.
        """
        file = recording(expect(request.payload, GenerationRequest), self._languages)
        windows, end = 0, 0.0
        with closing(audio_blocks(file.data, self._budget, SAMPLE_RATE, param=file.param)) as blocks:
            for stretch in cut(blocks, find_speech, _CUTTING):
                start, end = stretch.start / SAMPLE_RATE, (stretch.start + stretch.length) / SAMPLE_RATE
                if stretch.samples is None:
                    yield Silence(start, end)
                else:
                    features = self.log_mel(stretch.samples)
                    yield Window(start, stretch.length / SAMPLE_RATE, features, "" if windows else file.prompt)
                    windows += 1
        if not windows:
            raise InvalidRequest("No speech was found in the audio.", param=file.param, code="no_speech")
        yield End(end)

    def log_mel(self, samples: Samples) -> Tensor:
        # The reference code, too, computes one frame more than it uses.
        features: Samples = np.ascontiguousarray(self._features(samples)[..., :-1], np.float32)
        return Tensor(DType.FLOAT32, features.shape, features.data.cast("B"))


def find_speech(samples: Samples) -> Sequence[Span]:
    return [(found["start"], found["end"]) for found in get_speech_timestamps(samples, _SPEECH)]


def load_feature_extractor(folder: Path) -> FeatureExtractor:
    """As the folder's own settings have it, or as the models up to large-v2 do."""
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    known = signature(FeatureExtractor).parameters
    return FeatureExtractor(**{name: value for name, value in settings.items() if name in known})
