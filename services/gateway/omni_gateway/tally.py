"""What an answer has brought so far, for its text, its log line and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_common.clock import Clock
from omni_common.request import AudioOutput, Segment, TextOutput
from omni_common.telemetry.names import (
    AUDIO_RTF,
    AUDIO_SECONDS,
    AUDIO_UNDERRUN_SECONDS,
    FIRST_AUDIO_SECONDS,
    FIRST_OUTPUT_SECONDS,
    INTER_TOKEN_SECONDS,
    TOKENS,
)
from omni_common.telemetry.tracing import current, exemplar
from omni_gateway.call import Admitted, Event, Finished


@dataclass(frozen=True, slots=True)
class Batch:
    """The outputs among some events, by kind and each in order."""

    text: tuple[str, ...] = ()
    audio: tuple[AudioOutput, ...] = ()
    segments: tuple[Segment, ...] = ()


@dataclass(slots=True)
class Listener:
    """Somebody who plays what is made, from the first piece on and at the speed it was made for."""

    waited: float = 0.0
    _plays_until: float | None = None

    def hear(self, seconds: float, now: float) -> None:
        """So many seconds of sound came."""
        until = now if self._plays_until is None else self._plays_until
        self.waited += max(0.0, now - until)
        self._plays_until = max(now, until) + seconds


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
    listener: Listener = field(default_factory=Listener)
    # Between pieces of text; as many as those, so what bounds an answer bounds them.
    gaps: list[float] = field(default_factory=list)
    _last_text: float | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def see(self, events: Sequence[Event]) -> Batch:
        text: list[str] = []
        audio: list[AudioOutput] = []
        segments: list[Segment] = []
        heard = 0.0
        for event in events:
            match event:
                case Admitted(request_id):
                    self.request_id = request_id
                case TextOutput(piece):
                    text.append(piece)
                    self.pieces.append(piece)
                case AudioOutput(pcm, rate):
                    audio.append(event)
                    heard += len(pcm) / 2 / rate
                case Segment():
                    segments.append(event)
                case Finished():
                    self.finished = event
        now = self.clock() - self.began
        if (text or audio or segments) and self.first_output is None:
            self.first_output = now
        if audio:
            self._hear(heard, now)
        if text:
            self._read(len(text), now)
        return Batch(tuple(text), tuple(audio), tuple(segments))

    def _hear(self, seconds: float, now: float) -> None:
        if self.first_audio is None:
            self.first_audio = now
        self.audio_seconds += seconds
        self.listener.hear(seconds, now)

    def _read(self, pieces: int, now: float) -> None:
        """Pieces that come together share the time since the last; the first of all has none."""
        if self._last_text is not None:
            self.gaps += [(now - self._last_text) / pieces] * pieces
        self._last_text = now

    def record(self, pipeline: str) -> None:
        """Adds the answer to the metrics; `pipeline` is one that a coordinator named."""
        sampled = exemplar(current())
        if self.first_output is not None:
            FIRST_OUTPUT_SECONDS.labels(pipeline).observe(self.first_output, sampled)
        if self.first_audio is not None:
            FIRST_AUDIO_SECONDS.labels(pipeline).observe(self.first_audio, sampled)
            AUDIO_SECONDS.labels(pipeline, "out").inc(self.audio_seconds)
        between = INTER_TOKEN_SECONDS.labels(pipeline)
        for gap in self.gaps:
            between.observe(gap)
        if self.finished is None:
            return
        if self.audio_seconds:
            AUDIO_UNDERRUN_SECONDS.labels(pipeline).observe(self.listener.waited)
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
