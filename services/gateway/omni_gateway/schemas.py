"""The part of OpenAI's chat completion request that this gateway serves.

Whatever is not declared here is refused by name as unsupported, so nothing that a caller asks for is ignored in
silence. null means absent everywhere, as it does for OpenAI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

# Types of faults of our own, which `replies` renders.
UNSUPPORTED = "omni_unsupported"
UNKNOWN = "omni_unknown_"
MAX_SEED = 2**63 - 1


def only(*served: object) -> AfterValidator:
    """Accepts the values that ask for nothing special; any other is unsupported."""

    def check(value: Any) -> Any:
        if value not in served:
            raise PydanticCustomError(UNSUPPORTED, "This value is not supported by this server")
        return value

    return AfterValidator(check)


class Wire(BaseModel):
    """Base of what callers send."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value


def tagged(key: str, *known: str) -> Discriminator:
    """Chooses a member of a union by a field, with an error that names the field and what it may be."""

    def choose(value: object) -> str | None:
        tag = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return f"<{tag}>" if isinstance(tag, str) else None

    return Discriminator(
        choose,
        custom_error_type=UNKNOWN + key,
        custom_error_message=f"It must be one of {', '.join(known)}",
    )


class TextPart(Wire):
    type: Literal["text"]
    text: str


class RefusalPart(Wire):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(Wire):
    url: str
    # The model chooses its own resolution; every level is served alike.
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ImagePart(Wire):
    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(Wire):
    data: str
    # Only a hint: the content decides, as nothing that is declared is trusted.
    format: Annotated[str, Field(max_length=32)] | None = None


class AudioPart(Wire):
    type: Literal["input_audio"]
    input_audio: InputAudio


class VideoUrl(Wire):
    url: str


class VideoPart(Wire):
    type: Literal["video_url"]
    video_url: VideoUrl


class UnservedPart(Wire):
    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["file", "audio_url"], only()]


AnyPart = TextPart | ImagePart | AudioPart | VideoPart | RefusalPart | UnservedPart

# The tags of all unions stand between angle brackets so that `replies.json_path` can leave them out.
AnyText = Annotated[TextPart, Tag("<text>")]
Unserved = Annotated[UnservedPart, Tag("<file>")] | Annotated[UnservedPart, Tag("<audio_url>")]
UserPart = Annotated[
    AnyText
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[AudioPart, Tag("<input_audio>")]
    | Annotated[VideoPart, Tag("<video_url>")]
    | Unserved,
    tagged("type", "text", "image_url", "input_audio", "video_url"),
]
AssistantPart = Annotated[AnyText | Annotated[RefusalPart, Tag("<refusal>")], tagged("type", "text", "refusal")]
SystemPart = Annotated[AnyText | Unserved, tagged("type", "text")]


def _kind(value: object) -> str:
    return "<string>" if isinstance(value, str) else "<other>"


PlainText = Annotated[str, Tag("<string>")]
STRING_OR_OTHER = Discriminator(_kind)
SystemContent = Annotated[PlainText | Annotated[list[SystemPart], Field(min_length=1), Tag("<other>")], STRING_OR_OTHER]
UserContent = Annotated[PlainText | Annotated[list[UserPart], Field(min_length=1), Tag("<other>")], STRING_OR_OTHER]
AssistantContent = Annotated[PlainText | Annotated[list[AssistantPart], Tag("<other>")], STRING_OR_OTHER]


class SystemMessage(Wire):
    role: Literal["system", "developer"]
    content: SystemContent
    name: str | None = None


class UserMessage(Wire):
    role: Literal["user"]
    content: UserContent
    name: str | None = None


class PastAudio(Wire):
    """Speech of an earlier answer, by the identifier that came with it; callers may replay the rest of it."""

    id: str = Field(max_length=64)
    data: str | None = None
    expires_at: int | None = None
    transcript: str | None = None


class AssistantMessage(Wire):
    role: Literal["assistant"]
    content: AssistantContent | None = None
    audio: PastAudio | None = None
    refusal: str | None = None
    annotations: Annotated[list[Any], only([])] = []
    name: str | None = None


class ToolMessage(Wire):
    model_config = ConfigDict(extra="ignore")

    role: Annotated[Literal["tool", "function"], only()]


Message = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[ToolMessage, Tag("<function>")],
    tagged("role", "system", "developer", "user", "assistant"),
]


class Voice(Wire):
    id: str = Field(max_length=64)


AnyVoice = Annotated[
    Annotated[str, Field(max_length=64), Tag("<string>")] | Annotated[Voice, Tag("<other>")], STRING_OR_OTHER
]


def voice_name(voice: str | Voice) -> str:
    return voice if isinstance(voice, str) else voice.id


class AudioOptions(Wire):
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    voice: AnyVoice = ""


class StreamOptions(Wire):
    include_usage: bool = False
    include_obfuscation: Annotated[bool, only(False)] = False


Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
TopK = Annotated[int, Field(ge=0, le=2**31 - 1)]
RepetitionPenalty = Annotated[float, Field(ge=0.01, le=100)]
Seed = Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]
MaxTokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


class StageSampling(Wire):
    """How one stage of the pipeline samples; an extension of this server."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    repetition_penalty: RepetitionPenalty | None = None
    seed: Seed | None = None
    max_tokens: MaxTokens | None = None


StagesSampling = Annotated[Mapping[Annotated[str, Field(max_length=64)], StageSampling], Field(max_length=32)]


class ChatRequest(Wire):
    """The body of POST /v1/chat/completions."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=4096)
    modalities: list[Literal["text", "audio"]] = Field(default=["text"], min_length=1, max_length=2)
    audio: AudioOptions | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    repetition_penalty: RepetitionPenalty | None = None
    seed: Seed | None = None
    max_completion_tokens: MaxTokens | None = None
    max_tokens: MaxTokens | None = None
    stop: Annotated[
        Annotated[StopString, Tag("<string>")] | Annotated[list[StopString], Field(max_length=4), Tag("<other>")],
        STRING_OR_OTHER,
    ] = []
    stage_sampling: StagesSampling = {}

    # Named only so that the values which ask for nothing are accepted.
    n: Annotated[int, only(1)] = 1
    logprobs: Annotated[bool, only(False)] = False
    top_logprobs: Annotated[int, only(0)] = 0
    frequency_penalty: Annotated[float, only(0)] = 0
    presence_penalty: Annotated[float, only(0)] = 0
    logit_bias: Annotated[dict[str, float], only({})] = {}
    response_format: Annotated[dict[str, Any], only({"type": "text"})] | None = None
    store: Annotated[bool, only(False)] = False
    service_tier: Annotated[str, only("auto", "default")] = "auto"

    # Harmless labels of the caller's own.
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None
