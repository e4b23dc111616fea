"""What the caller gets, and when: each segment as soon as its window is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from omni_common.errors import Internal
from omni_common.request import FinishReason, Segment, TerminalResult, Usage
from omni_stage.models.whisper.payload_types import End, Passage, Passages, expect


@dataclass(slots=True)
class Writing:
    """The session of decode. `text_of` makes text of a passage's tokens and says how many of them are text."""

    text_of: Callable[[Sequence[int]], tuple[str, int]]
    _tokens: int = field(default=0, init=False)
    _seconds: float | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        return [segment for chunk in chunks for segment in self._segments(chunk)]

    def finish(self) -> tuple[Sequence[object], object]:
        if self._seconds is None:
            raise Internal("The recording has no end.")
        usage = Usage(completion_text_tokens=self._tokens, prompt_audio_seconds=self._seconds)
        return (), TerminalResult(FinishReason.STOP, usage)

    def close(self) -> None:
        """A session holds nothing but itself."""

    def _segments(self, chunk: object) -> Iterator[Segment]:
        if isinstance(chunk, End):
            self._seconds = chunk.seconds
            return
        for passage in expect(chunk, Passages).passages:
            yield self._segment(passage)

    def _segment(self, passage: Passage) -> Segment:
        text, count = self.text_of(passage.tokens)
        self._tokens += count
        # Tokens begin with the space before them; at the very beginning there is nothing to keep apart.
        text, self._begun = text if self._begun else text.lstrip(), True
        return Segment(
            passage.start,
            passage.end,
            text,
            passage.language,
            passage.tokens,
            passage.temperature,
            passage.avg_logprob,
            passage.compression_ratio,
            passage.no_speech_prob,
            passage.words,
        )
