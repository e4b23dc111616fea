"""The part of OpenAI's transcription and translation requests that this gateway serves, the file aside.

The values of a form are text, so numbers and truth values are read from it. As in `omni_gateway.schemas`, what is not
declared is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from omni_gateway.schemas import UNSUPPORTED, Wire, only

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]

# Fields that may be given more than once; clients write them with brackets behind their names.
LISTS = frozenset({"timestamp_granularities"})


def _without_speakers(value: object) -> object:
    if value == "diarized_json":
        raise PydanticCustomError(UNSUPPORTED, "Speakers are not told apart")
    return value


class TranslationForm(Wire):
    """The fields of POST /v1/audio/translations."""

    model: str = Field(min_length=1, max_length=256)
    prompt: str = Field(default="", max_length=4096)
    response_format: Annotated[ResponseFormat, BeforeValidator(_without_speakers)] = "json"
    temperature: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None


class TranscriptionForm(TranslationForm):
    """The fields of POST /v1/audio/transcriptions."""

    # ISO 639-1, of which a region is taken off ("en-US"); some languages have only a code of three letters.
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$")] = ""
    timestamp_granularities: list[Granularity] = Field(default=[], max_length=2)
    stream: Annotated[bool, Field(strict=False)] = False
    # Where a file is cut is the server's choice in any case.
    chunking_strategy: Annotated[str, only("auto")] = "auto"
