"""What a request asks of each autoregressive stage: the caller's settings over the stage's defaults."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from omni_common.errors import InvalidRequest
from omni_common.request import (
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Role,
    Sampling,
    Task,
    Text,
)
from omni_stage.models.qwen3_omni.config import PIPELINE

MAX_TEXT_TOKENS = 2048  # where the caller sets no limit
MAX_FRAMES = 4096  # of speech: 5 minutes 28 seconds
# Before a text that is to be said word for word. The talker hears all of the user's turns and nothing of the system's,
# so what the caller says about the way of speaking stands in the user's turn too, before this.
READ_ALOUD = "Read this text aloud, word for word:\n\n"

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
    settings = asked.over(defaults).over(Sampling(1.0, 1.0, 0, 1.0, params.fallback_seed or None, MAX_TEXT_TOKENS))
    return replace(settings, max_tokens=min(settings.max_tokens or MAX_TEXT_TOKENS, context - prompt))


def talker_sampling(params: GenerationParams) -> Sampling:
    """The speech's settings. Of the request's own settings, which are about text, only the seed holds here too."""
    asked = params.stage_sampling.get("talker", Sampling())
    seed = Sampling(seed=params.fallback_seed or None)
    settings = asked.over(Sampling(seed=params.sampling.seed)).over(TALKER).over(seed)
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


def voice_of(params: GenerationParams, known: Collection[str]) -> str:
    voice = (params.voice or PIPELINE.default_voice).lower()
    if voice not in known:
        param = "voice" if params.task is Task.SPEECH else "audio.voice"
        raise InvalidRequest(f"There is no voice '{voice}'; there are {', '.join(sorted(known))}.", param=param)
    return voice


def reading(request: GenerationRequest) -> tuple[Message, str]:
    """The turn that asks for a text to be read, and that text. Raises InvalidRequest when there is nothing to read."""
    if Modality.AUDIO not in request.params.modalities:
        raise InvalidRequest("A request to read a text aloud must ask for audio.", param="modalities")
    said: dict[Role, str] = defaultdict(str)
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Media):
                raise InvalidRequest("Only text can be read aloud.", param=part.param or None)
            said[message.role] += part.text
    instructions, text = said[Role.SYSTEM].strip(), said[Role.USER].strip()
    if not text:
        raise InvalidRequest("The input has no text to say.", param="input")
    asked = f"{instructions}\n\n{READ_ALOUD}" if instructions else READ_ALOUD
    return Message(Role.USER, (Text(f"{asked}{text}"),)), text
