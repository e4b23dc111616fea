"""The door: how many requests live at once, and how many bytes of media wait for their stage or are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import timedelta

from omni_common.errors import OmniError, Overloaded, Reason


class Admission:
    """Counts live requests and refuses above the limit; nobody waits here."""

    def __init__(self, max_live: int) -> None:
        self._max_live = max_live
        self._open = True
        self.live = 0

    def take(self) -> None:
        """One more request. Raises OmniError when there is no room or the coordinator is draining."""
        if not self._open:
            raise OmniError(
                Reason.STAGE_UNAVAILABLE,
                "This coordinator is stopping and takes no new requests.",
                retry_after=timedelta(seconds=1),
            )
        if self.live >= self._max_live:
            raise Overloaded(f"The coordinator serves {self.live} requests already, which is all it may.")
        self.live += 1

    def give_back(self) -> None:
        self.live -= 1

    def close(self) -> None:
        """From now on every request is refused."""
        self._open = False

    @property
    def open(self) -> bool:
        return self._open


class MediaBudget:
    """Bytes of media that this process may hold between a caller and an entry stage, and of requests that are kept
    beside them for another attempt: those give way, the oldest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._kept: OrderedDict[Hashable, tuple[int, Callable[[], None]]] = OrderedDict()
        self._kept_bytes = 0

    @property
    def kept(self) -> int:
        return self._kept_bytes

    def try_take(self, size: int) -> bool:
        if self.held + size > self.limit:
            return False
        self.held += size
        self._make_room()
        return True

    def give_back(self, size: int) -> None:
        self.held -= size

    def keep(self, owner: Hashable, size: int, let_go: Callable[[], None]) -> None:
        """Until `drop`, or until others need the room; `let_go` is called then, perhaps at once."""
        self._kept[owner] = size, let_go
        self._kept_bytes += size
        self._make_room()

    def drop(self, owner: Hashable) -> None:
        """Idempotent."""
        size, _ = self._kept.pop(owner, (0, None))
        self._kept_bytes -= size

    def _make_room(self) -> None:
        while self._kept and self.held + self._kept_bytes > self.limit:
            owner, (_, let_go) = next(iter(self._kept.items()))
            self.drop(owner)
            let_go()
