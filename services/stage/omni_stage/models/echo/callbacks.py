"""What the caller gets, and when: every word at once as text, and as a tone."""

from __future__ import annotations

from collections.abc import Sequence

from omni_common.errors import Internal
from omni_common.request import AudioOutput, TerminalResult, TextOutput, Usage
from omni_stage.models.echo.components.tone import tone
from omni_stage.models.echo.config import SAMPLE_RATE, SAMPLES_PER_WORD
from omni_stage.models.echo.payload_types import Scale, Word, expect
from omni_stage.scheduler.contract import NewRequest


class Writing:
    """The session of write."""

    def __init__(self, request: NewRequest) -> None:
        self._last: Word | None = None

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        words = [expect(chunk, Word) for chunk in chunks]
        self._last = words[-1]
        return [TextOutput(word.text) for word in words if word.text]

    def finish(self) -> tuple[Sequence[object], object]:
        if self._last is None or self._last.usage is None:
            raise Internal("The answer has no last word.")
        return (), TerminalResult(self._last.finish, self._last.usage)

    def close(self) -> None:
        """A session holds nothing but itself."""


class Beeping:
    """The session of beep."""

    def __init__(self, request: NewRequest) -> None:
        self._scale = expect(request.payload, Scale)
        self._tones = 0

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        words = [word.text for chunk in chunks if (word := expect(chunk, Word)).text]
        self._tones += len(words)
        return [
            AudioOutput(tone(word, self._scale.base_hz, SAMPLES_PER_WORD, rate=SAMPLE_RATE), SAMPLE_RATE)
            for word in words
        ]

    def finish(self) -> tuple[Sequence[object], object]:
        return (), TerminalResult(None, Usage(completion_audio_tokens=self._tones))

    def close(self) -> None:
        """A session holds nothing but itself."""
