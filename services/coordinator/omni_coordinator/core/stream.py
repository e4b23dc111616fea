"""What one terminal stage sends to the caller, over all attempts: its numbers, its credits, and what the caller has."""

from __future__ import annotations

from omni_common.request import Modality, Output
from omni_coordinator.core.events import SendOutput
from omni_coordinator.core.tracks import Differs, Replay
from omni_coordinator.core.transcript import Transcript


class Stream:
    """`room` is how many outputs the caller may get. The stage may never send more than that, so what it has made again
    is credited back to it, and nothing else is before the caller has read."""

    def __init__(self, modality: Modality, room: int, *, keep: bool) -> None:
        self.modality = modality
        self.room = room
        self.done = False
        self.transcript = Transcript(keep=keep)
        self._sent = 0
        self._lent = 0
        self._reached = False
        self._replay: Replay | None = None

    @property
    def is_through(self) -> bool:
        """Whether the attempt has made all that the caller has."""
        return self._replay is None

    def begin(self, credit: int, *, reached: bool) -> None:
        """An attempt begins, whose stage may send so much; whether credits for it find the stage already."""
        replay = self.transcript.replay()
        self._replay = None if replay is None or replay.is_through else replay
        self._lent = credit
        self._reached = reached

    def take(self, output: Output) -> SendOutput | None:
        """What of it goes to the caller. Raises Differs."""
        self._lent -= 1
        self._reached = True
        fresh = self._held_against_what_was(output)
        if fresh is None:
            return None
        if self.done:
            raise Differs
        self.transcript.note(fresh)
        self.room -= 1
        self._sent += 1
        return SendOutput(self._sent - 1, fresh)

    def end(self) -> None:
        """The stage has made all of its output. Raises Differs."""
        if not self.is_through:
            raise Differs
        self.done = True

    def owed(self) -> int:
        """Credits that the stage gets now."""
        if not self._reached:
            return 0
        allowed = max(self.room, 1) if self.done else self.room
        credit = max(0, allowed - self._lent)
        self._lent += credit
        return credit

    def _held_against_what_was(self, output: Output) -> Output | None:
        if self._replay is None:
            return output
        fresh = self._replay.take(output)
        if self._replay.is_through:
            self._replay = None
        return fresh
