"""What was said in earlier answers, for callers that replay them by identifier.

An identifier lives in the process that made it, for the time it announced; a full store forgets its oldest first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from omni_common.clock import Clock


@dataclass(frozen=True, slots=True)
class _Entry:
    transcript: str
    expires: float


class Transcripts:
    """Bounded in entries and characters."""

    def __init__(self, *, clock: Clock, lifetime: float, max_entries: int = 4096, max_chars: int = 16 << 20) -> None:
        self.lifetime = lifetime
        self._clock = clock
        self._max_entries = max_entries
        self._max_chars = max_chars
        self._chars = 0
        # All entries live equally long, so the oldest is also the next to expire.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def put(self, audio_id: str, transcript: str) -> None:
        """Keeps the text that was spoken under `audio_id`, a fresh identifier of our own making."""
        now = self._clock()
        self._entries[audio_id] = _Entry(transcript, now + self.lifetime)
        self._chars += len(transcript)
        while self._entries and self._over(now):
            _, oldest = self._entries.popitem(last=False)
            self._chars -= len(oldest.transcript)

    def get(self, audio_id: str) -> str | None:
        """None when the identifier is unknown, expired or from another process."""
        entry = self._entries.get(audio_id)
        return None if entry is None or entry.expires <= self._clock() else entry.transcript

    def _over(self, now: float) -> bool:
        oldest = next(iter(self._entries.values()))
        return len(self._entries) > self._max_entries or self._chars > self._max_chars or oldest.expires <= now
