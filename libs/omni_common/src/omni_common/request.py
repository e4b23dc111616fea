"""The request as the mesh knows it: parsed once at the border, correct by construction below it.

The messages of `omni.common.v1` stop at `omni_common.rpc.convert`; nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Modality(StrEnum):
    """What a request contains or produces."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


class Task(StrEnum):
    """What a request wants done."""

    CHAT = "chat"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    TRANSLATION = "translation"


class FinishReason(StrEnum):
    """Why the text ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    param: str = ""


@dataclass(frozen=True, slots=True)
class Media:
    """An encoded image, audio or video file; `param` is the JSON path to name when it is at fault."""

    modality: Modality
    data: bytes | memoryview
    param: str = ""


Part = Text | Media


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """What the caller set; None takes the pipeline's default. `temperature` 0 is greedy, `top_k` 0 is off."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None

    def over(self, defaults: Sampling) -> Sampling:
        """These settings, and the defaults where nothing is set."""
        return Sampling(
            **{
                name: getattr(defaults, name) if getattr(self, name) is None else getattr(self, name)
                for name in Sampling.__slots__
            }
        )


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """What the caller asks. `fallback_seed` is none of it but the coordinator's, for stages that draw at random where
    the caller has set no seed: another attempt draws the same."""

    modalities: frozenset[Modality] = frozenset({Modality.TEXT})
    sampling: Sampling = Sampling()
    stage_sampling: Mapping[str, Sampling] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    voice: str = ""
    task: Task = Task.CHAT
    language: str = ""
    word_times: bool = False
    fallback_seed: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    model: str
    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()


@dataclass(frozen=True, slots=True, order=True)
class RequestKey:
    """Which request, and which try at it."""

    request_id: str
    attempt: int = 0

    @property
    def lane(self) -> str:
        """Both in one string, for the lanes of streams and the owners of blobs: what is dropped with one attempt is not
        dropped with another."""
        return f"{self.request_id}#{self.attempt}" if self.attempt else self.request_id


@dataclass(frozen=True, slots=True)
class Binding:
    """The replica of one stage that serves a request; replicas of one pod share an arena
    and a relay, whose host:port is empty where there is none."""

    replica: str
    address: str
    pod: str
    relay: str = ""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """W3C trace context; empty when the request is not traced."""

    traceparent: str = ""
    tracestate: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What travels with a request. `deadline` and `origin` (its admission) are seconds on this process's own
    monotonic clock: they cross hops as time left and age."""

    key: RequestKey
    pipeline: str
    coordinator: str
    deadline: float
    origin: float
    bindings: Mapping[str, Binding]
    terminals: frozenset[str]
    params: GenerationParams
    output_credits: int
    trace: TraceContext = TraceContext()


@dataclass(frozen=True, slots=True)
class StageReport:
    """When a stage worked on a request, in seconds since its admission."""

    stage: str
    replica: str
    first_input: float
    first_output: float
    end: float


@dataclass(frozen=True, slots=True)
class TextOutput:
    text: str


@dataclass(frozen=True, slots=True)
class AudioOutput:
    """Signed 16-bit little-endian mono samples."""

    pcm: bytes
    sample_rate: int


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word; times are seconds from the start of the file."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of recognised speech, with the measures of Whisper's reference code; times as in Word. Joined, the
    texts of a request's segments are its transcript."""

    start: float
    end: float
    text: str
    language: str
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: tuple[Word, ...] = ()


Output = TextOutput | AudioOutput | Segment


def modality_of(output: Output) -> Modality:
    """Whose credit it costs."""
    return Modality.AUDIO if isinstance(output, AudioOutput) else Modality.TEXT


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; audio tokens of a completion are codec frames, and seconds those of the audio that came in. Cached ones
    were not computed because an earlier prompt began with them."""

    prompt_tokens: int = 0
    prompt_audio_tokens: int = 0
    prompt_image_tokens: int = 0
    completion_text_tokens: int = 0
    completion_audio_tokens: int = 0
    prompt_audio_seconds: float = 0.0
    prompt_cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, n) + getattr(other, n) for n in Usage.__slots__))


@dataclass(frozen=True, slots=True)
class TerminalResult:
    """How one terminal stage ended. `finish_reason` is None where the stage has no say in it (speech)."""

    finish_reason: FinishReason | None
    usage: Usage
    reports: tuple[StageReport, ...] = ()
