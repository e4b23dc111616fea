"""What a request asks of the stages; their work itself is in `components`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from omni_common.errors import InvalidRequest
from omni_common.request import (
    GenerationRequest,
    Media,
    Message,
    Modality,
    Role,
    Sampling,
    Task,
    Text,
)
from omni_stage.asked import require_known
from omni_stage.scheduler.contract import NewRequest

# Of a prompt the model takes the last 223 tokens; no real ones are 40 characters each.
_MOST_PROMPT = 9_000


@dataclass(frozen=True, slots=True)
class Recording:
    """The file to read; `param` names it in errors. `prompt` is text that might stand before what is said."""

    data: bytes | memoryview
    param: str
    prompt: str


def recording(request: GenerationRequest, languages: Collection[str]) -> Recording:
    """Raises InvalidRequest unless there is exactly one recording, in a language that is known if it is told, and
    Unsupported for settings that mean nothing to Whisper."""
    require_known(request.params, {"temperature"}, model="Whisper")
    if request.params.language and request.params.language not in languages:
        known = ", ".join(languages)
        raise InvalidRequest(
            f"The model knows no language '{request.params.language}'; it knows {known}.", param="language"
        )
    parts = [part for message in request.messages if message.role is Role.USER for part in message.parts]
    files = [part for part in parts if isinstance(part, Media) and part.modality is Modality.AUDIO]
    if len(files) != 1 or len(parts) != 1:
        raise InvalidRequest("A transcription needs one audio file, and nothing beside it.", param="file")
    return Recording(files[0].data, files[0].param or "file", _prompt(request.messages))


def _prompt(messages: tuple[Message, ...]) -> str:
    texts = [part.text for m in messages if m.role is Role.SYSTEM for part in m.parts if isinstance(part, Text)]
    return " ".join(text for text in map(str.strip, texts) if text)[-_MOST_PROMPT:]


@dataclass(slots=True)
class Recognition:
    """What one request wants of all its windows: the session of transcribe.

    `language` is found in the first window if it is empty. Without a `temperature` it is 0, and more where that fails.
    """

    language: str
    translate: bool
    temperature: float | None
    word_times: bool

    @property
    def task(self) -> str:
        return "translate" if self.translate else "transcribe"

    @property
    def text_language(self) -> str:
        """Whisper translates into English only."""
        return "en" if self.translate else self.language

    def finish(self) -> tuple[Sequence[object], object]:
        return (), None

    def close(self) -> None:
        """A session holds nothing but itself."""


def recognition(request: NewRequest) -> Recognition:
    params = request.params
    sampling = params.stage_sampling.get("transcribe", Sampling()).over(params.sampling)
    return Recognition(params.language, params.task is Task.TRANSLATION, sampling.temperature, params.word_times)
