"""What is streamed to the caller, and when: text up to a stop string, and how each terminal stage ends."""

from __future__ import annotations

from collections.abc import Sequence

from omni_common.request import TerminalResult, Usage
from omni_stage.models.qwen3_omni.payload_types import TextEnd


class StopFilter:
    """Lets text through up to the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """The text that can go out now. Once a stop string was met, nothing can."""
        if self.hit:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.hit = True
            self._held = ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back for nothing."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How much of the end of the text is a beginning of the stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def text_result(end: TextEnd) -> TerminalResult:
    return TerminalResult(end.finish, end.usage)


def speech_result(frames: int) -> TerminalResult:
    return TerminalResult(None, Usage(completion_audio_tokens=frames))
