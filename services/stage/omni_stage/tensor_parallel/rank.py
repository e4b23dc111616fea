"""Which of the processes that share a model this one is, and rank 0's way of speaking to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni_stage.tensor_parallel.line import Line, LineBroken


@dataclass(frozen=True, slots=True)
class Rank:
    """`meeting` is the file where the ranks find each other; `timeout` are the seconds that one waits for another, once
    they have met."""

    number: int = 0
    size: int = 1
    meeting: Path = Path()
    timeout: float = 300.0

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        return self.number == 0


class Leading:
    """Rank 0's side of the lines. Any thread may use it."""

    def __init__(self, stage: str, rank: Rank, lines: Sequence[Line]) -> None:
        self.stage = stage
        self.rank = rank
        self._lines = lines
        self._lock = threading.Lock()
        self._why = ""
        self._on_break: list[Callable[[], None]] = []

    @property
    def why(self) -> str:
        """Why the ranks no longer work together, in words that complete "its ranks …"; empty while they do."""
        return self._why

    def tell(self, message: bytes) -> None:
        """To all followers, in order. Raises LineBroken."""
        self.check()
        for line in self._lines:
            line.send(message, self.rank.timeout)

    def check(self) -> None:
        """Raises LineBroken when the ranks no longer work together."""
        if self._why:
            raise LineBroken("has been broken off")

    def on_break(self, interrupt: Callable[[], None]) -> None:
        """`interrupt` ends what a thread may be waiting for, once nobody will answer any more."""
        self._on_break.append(interrupt)

    def break_off(self, why: str) -> None:
        """For good: followers end when their line does. The first reason is kept."""
        with self._lock:
            if self._why:
                return
            self._why = why
        for line in self._lines:
            line.shut()
        for interrupt in self._on_break:
            # Of its own: a library that tears down what a dead rank was part of may take its time, or for ever.
            threading.Thread(target=interrupt, name="interrupt", daemon=True).start()


class RankFailed(Exception):
    """Another rank is gone or hangs. A sentence."""


class Following:
    """A follower's side of its line."""

    def __init__(self, rank: Rank, line: Line) -> None:
        self.rank = rank
        self._line = line

    def listen(self) -> bytes | None:
        """What rank 0 says next; None when it has ended."""
        return self._line.receive()

    def loaded(self) -> None:
        """This rank has its part of the model."""
        self._line.send(LOADED, self.rank.timeout)

    def refuse(self, why: str) -> None:
        """It cannot have it; `why` is a sentence."""
        self._line.send(REFUSED + why.encode(), self.rank.timeout)


# What a follower says. There are no more words than these two.
LOADED = b"loaded"
REFUSED = b"refused "
