"""Each part once, before the first request: what is loaded late or compiled then is not waited for later."""

from __future__ import annotations

import numpy as np

from omni_common.tensor import DType, Tensor
from omni_stage.models.whisper.components.preprocess import find_speech
from omni_stage.models.whisper.components.recogniser import Recogniser
from omni_stage.models.whisper.config import SAMPLE_RATE
from omni_stage.models.whisper.payload_types import Window
from omni_stage.models.whisper.request_builders import Recognition


def warm_preprocess() -> None:
    find_speech(np.zeros(SAMPLE_RATE, np.float32))


def warm_recogniser(recogniser: Recogniser) -> None:
    features = np.zeros((recogniser.mels, 1), np.float32)
    window = Window(0.0, 0.01, Tensor(DType.FLOAT32, features.shape, features.data.cast("B")))
    # With a temperature, so that nothing is tried twice.
    recogniser.read([(Recognition("en", translate=False, temperature=0.0, word_times=False), window)])
