"""The part of OpenAI's speech request that this gateway serves, by the rules of `omni_gateway.schemas`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from omni_gateway.schemas import AnyVoice, Seed, StagesSampling, Wire

# As OpenAI's, in characters.
MAX_TEXT = 4096

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("omni_blank", "It has nothing to say")
    return text


def _no_nul(text: str) -> str:
    # Programs that speak, and the C libraries beneath them, would read the text only up to here.
    if "\0" in text:
        raise PydanticCustomError("omni_nul", "It contains the character NUL")
    return text


_Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_no_nul)]


class SpeechRequest(Wire):
    """The body of POST /v1/audio/speech."""

    model: str = Field(min_length=1, max_length=256)
    input: Annotated[_Text, AfterValidator(_not_blank)]
    voice: AnyVoice = ""  # the pipeline's default; OpenAI requires one
    instructions: _Text = ""
    response_format: Format = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1
    stream_format: Literal["audio", "sse"] = "audio"

    # Of our own, as in chat.
    seed: Seed | None = None
    stage_sampling: StagesSampling = Field(default={})
