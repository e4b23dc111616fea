"""The ways into a stage for one request: the join of its payloads and the order of its streams."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from omni_common.errors import Internal

Needs = Callable[[str, object], Collection[str] | None]
Merge = Callable[[Mapping[str, object]], object]


class FanIn:
    """Waits for the payloads that one request joins here.

    `sources` are the stages with a payload edge to this one; with `wait_for` empty the first payload is the request.
    """

    def __init__(
        self, sources: frozenset[str], wait_for: frozenset[str], needs: Needs | None, merge: Merge | None
    ) -> None:
        self._sources = sources
        self._wait_for = wait_for
        self._needs_of = needs
        self._merge = merge
        self._needed: frozenset[str] | None = wait_for if needs is None else None
        self._joined: dict[str, object] = {}

    def add(self, source: str, payload: object) -> tuple[object] | None:
        """The joined payload in a 1-tuple when it is complete, else None. Raises Internal for a stray payload."""
        if source not in self._sources or source in self._joined:
            raise Internal(f"A payload from '{source}' came where none was expected.")
        if not self._wait_for:
            return (payload,)
        self._joined[source] = payload
        if self._needed is None and self._needs_of is not None:
            self._needed = self._checked(self._needs_of(source, payload))
        if self._needed is None or self._needed != self._joined.keys():
            return None
        joined, self._joined = self._joined, {}
        if self._merge is None:
            return (joined,)
        return (self._merge(joined),)

    def _checked(self, needed: Collection[str] | None) -> frozenset[str] | None:
        if needed is None:
            return None
        if not needed or not self._wait_for.issuperset(needed):
            raise Internal(f"A request asks to join {sorted(needed)}, outside the declared {sorted(self._wait_for)}.")
        return frozenset(needed)


class Inflow:
    """One stream edge of one request, on the receiving side: order, end, and the credits owed to the sender.

    Credits go back in quarters of the window, so that they cost a fraction of the messages that they pay for.
    """

    def __init__(self, window: int) -> None:
        self._quantum = max(1, window // 4)
        self._accepted = 0
        self._consumed = 0
        self._returned = 0
        self.done = False

    def accept(self, index: int) -> bool:
        """Whether this chunk is new; False for a repeated one. Raises Internal for a gap."""
        if index < self._accepted:
            return False
        if index > self._accepted or self.done:
            raise Internal(f"A stream's chunk {self._accepted} is missing; chunk {index} came instead.")
        self._accepted += 1
        return True

    def close(self, chunks: int) -> None:
        """Raises Internal when chunks are missing."""
        if chunks != self._accepted:
            raise Internal(f"A stream ended after {self._accepted} of its {chunks} chunks.")
        self.done = True

    def consume(self, count: int) -> None:
        """The scheduler has taken up that many more chunks."""
        self._consumed = min(self._consumed + count, self._accepted)

    def drain(self) -> None:
        """Nobody will take up what has come."""
        self._consumed = self._accepted

    def settle(self) -> int:
        """How many credits to give back now; none once the stream is done, when the sender needs none."""
        owed = self._consumed - self._returned
        if owed < self._quantum or self.done:
            return 0
        self._returned = self._consumed
        return owed


def stray(source: str, sources: Sequence[str]) -> Internal:
    """The failure of a chunk from a stage that has no stream edge to this one."""
    return Internal(f"A chunk from '{source}' came, but only {', '.join(sources) or 'no stage'} may send chunks.")
