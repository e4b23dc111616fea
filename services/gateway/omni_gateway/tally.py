"""What an answer has brought so far, for its text, its log line and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_common.clock import Clock
from omni_common.request import AudioOutput, Segment, TextOutput
from omni_common.telemetry.names import (
    AUDIO_RTF,
    AUDIO_SECONDS,
    FIRST_AUDIO_SECONDS,
    FIRST_OUTPUT_SECONDS,
    TOKENS,
)
from omni_gateway.call import Admitted, Event, Finished


@dataclass(frozen=True, slots=True)
class Batch:
    """The outputs among some events, by kind and each in order."""

    text: tuple[str, ...] = ()
    audio: tuple[AudioOutput, ...] = ()
    segments: tuple[Segment, ...] = ()


@dataclass(slots=True)
class Tally:
    """Times are seconds since `began`, a reading of `clock`."""

    clock: Clock
    began: float
    request_id: str = ""
    pieces: list[str] = field(default_factory=list)
    audio_seconds: float = 0.0
    first_output: float | None = None
    first_audio: float | None = None
    finished: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def see(self, events: Sequence[Event]) -> Batch:
        text: list[str] = []
        audio: list[AudioOutput] = []
        segments: list[Segment] = []
        for event in events:
            match event:
                case Admitted(request_id):
                    self.request_id = request_id
                case TextOutput(piece):
                    text.append(piece)
                    self.pieces.append(piece)
                case AudioOutput(pcm, rate):
                    audio.append(event)
                    self.audio_seconds += len(pcm) / 2 / rate
                case Segment():
                    segments.append(event)
                case Finished():
                    self.finished = event
        now = self.clock() - self.began
        if (text or audio or segments) and self.first_output is None:
            self.first_output = now
        if audio and self.first_audio is None:
            self.first_audio = now
        return Batch(tuple(text), tuple(audio), tuple(segments))

    def record(self, pipeline: str) -> None:
        """Adds the answer to the metrics; `pipeline` is one that a coordinator named."""
        if self.first_output is not None:
            FIRST_OUTPUT_SECONDS.labels(pipeline).observe(self.first_output)
        if self.first_audio is not None:
            FIRST_AUDIO_SECONDS.labels(pipeline).observe(self.first_audio)
            AUDIO_SECONDS.labels(pipeline, "out").inc(self.audio_seconds)
        if self.finished is None:
            return
        if self.audio_seconds:
            AUDIO_RTF.labels(pipeline).observe((self.clock() - self.began) / self.audio_seconds)
        usage = self.finished.usage
        if usage.prompt_audio_seconds:
            AUDIO_SECONDS.labels(pipeline, "in").inc(usage.prompt_audio_seconds)
        for kind, modality, count in (
            ("prompt", "all", usage.prompt_tokens),
            ("completion", "text", usage.completion_text_tokens),
            ("completion", "audio", usage.completion_audio_tokens),
        ):
            TOKENS.labels(pipeline, kind, modality).inc(count)
