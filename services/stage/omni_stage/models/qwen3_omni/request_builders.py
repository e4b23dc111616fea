"""What a request asks of each autoregressive stage: the caller's settings over the stage's defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from omni_common.errors import InvalidRequest
from omni_common.request import GenerationParams, Modality, Sampling
from omni_stage.models.qwen3_omni.config import PIPELINE

MAX_TEXT_TOKENS = 2048  # where the caller sets no limit
MAX_FRAMES = 4096  # of speech: 5 minutes 28 seconds

_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, float("inf")),
    "repetition_penalty": (0.01, 100.0),
    "max_tokens": (1, float("inf")),
}

# As the model's authors set them.
TALKER = Sampling(temperature=0.9, top_p=1.0, top_k=50, repetition_penalty=1.05, max_tokens=MAX_FRAMES)
CODE_PREDICTOR = Sampling(temperature=1.0, top_p=0.8, top_k=50, repetition_penalty=1.0)


def thinker_sampling(params: GenerationParams, defaults: Sampling, *, prompt: int, context: int) -> Sampling:
    """The text's settings; `max_tokens` ends at the end of the context."""
    asked = params.stage_sampling.get("thinker", Sampling()).over(params.sampling)
    settings = asked.over(defaults).over(Sampling(1.0, 1.0, 0, 1.0, None, MAX_TEXT_TOKENS))
    return replace(settings, max_tokens=min(settings.max_tokens or MAX_TEXT_TOKENS, context - prompt))


def talker_sampling(params: GenerationParams) -> Sampling:
    """The speech's settings. Of the request's own settings, which are about text, only the seed holds here too."""
    asked = params.stage_sampling.get("talker", Sampling())
    settings = asked.over(Sampling(seed=params.sampling.seed)).over(TALKER)
    return replace(settings, max_tokens=min(settings.max_tokens or MAX_FRAMES, MAX_FRAMES))


def predictor_sampling(talker: Sampling) -> Sampling:
    """The residual codes are drawn greedily exactly when the first code is."""
    return replace(CODE_PREDICTOR, temperature=0.0) if talker.temperature == 0 else CODE_PREDICTOR


def check(params: GenerationParams, voices: Collection[str]) -> None:
    """Raises InvalidRequest. A number that no softmax survives would fail every request of the batch it is in."""
    for where, asked in (
        ("", params.sampling),
        *((f"stage_sampling.{n}.", s) for n, s in params.stage_sampling.items()),
    ):
        for name, (least, most) in _RANGES.items():
            value = getattr(asked, name)
            if value is not None and not least <= value <= most:
                raise InvalidRequest(f"{name} must be from {least:g} to {most:g}.", param=f"{where}{name}")
    if Modality.AUDIO in params.modalities:
        voice_of(params, voices)


def _check(settings: Sampling, where: str) -> None:
    for name, (least, most) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise InvalidRequest(f"{name} must be from {least:g} to {most:g}.", param=f"{where}{name}")


def voice_of(params: GenerationParams, known: Collection[str]) -> str:
    voice = (params.voice or PIPELINE.default_voice).lower()
    if voice not in known:
        raise InvalidRequest(f"There is no voice '{voice}'; there are {', '.join(sorted(known))}.", param="audio.voice")
    return voice
