"""Who waits for an extent, and who may be passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# How often others may be served before a waiter whose want does not fit yet: small wants go on while a large one waits,
# and the large one's turn comes.
MAX_PASSED = 4


@dataclass(slots=True)
class Waiter:
    """`size` is what it needs in one piece, in bytes."""

    name: str
    size: int
    passed: int = 0


class WaitingLine:
    """Waiters in the order in which they came; one want each."""

    def __init__(self) -> None:
        self._line: dict[str, Waiter] = {}

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, name: str) -> bool:
        return name in self._line

    def add(self, name: str, size: int) -> None:
        """A second want takes the place of the first."""
        self._line.setdefault(name, Waiter(name, size)).size = size

    def remove(self, name: str) -> None:
        self._line.pop(name, None)

    def remove_if(self, condition: Callable[[Waiter], bool]) -> list[Waiter]:
        """Takes out all of whom it holds."""
        gone = [waiter for waiter in self._line.values() if condition(waiter)]
        for waiter in gone:
            del self._line[waiter.name]
        return gone

    def serve(self, fits: Callable[[Waiter], bool], modest: Callable[[Waiter], bool]) -> Waiter | None:
        """Takes out the first waiter that fits and may be served. A modest one may pass all others: what it gets is
        reserved for such as it."""
        waiting: list[Waiter] = []
        closed = False
        for waiter in self._line.values():
            if (not closed or modest(waiter)) and fits(waiter):
                for other in waiting:
                    other.passed += 1
                del self._line[waiter.name]
                return waiter
            closed = closed or waiter.passed >= MAX_PASSED
            waiting.append(waiter)
        return None
