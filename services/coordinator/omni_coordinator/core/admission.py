"""The door: how many requests live at once, and how many bytes of media wait for their stage."""

from __future__ import annotations

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
    """Bytes of media that this process may hold between a caller and an entry stage."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def try_take(self, size: int) -> bool:
        if self.held + size > self.limit:
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size
