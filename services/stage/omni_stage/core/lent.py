"""What a link has lent to its replica: slots of the arena, each for a request, until it says that it has done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from omni_common.request import RequestKey

Slot = TypeVar("Slot")
Identity = tuple[int, int]


class Lent(Generic[Slot]):
    """Slots by an identity of theirs; one may be lent several times."""

    def __init__(self) -> None:
        self._lent: dict[Identity, list[tuple[RequestKey, Slot]]] = {}

    def lend(self, key: RequestKey, identity: Identity, slot: Slot) -> None:
        self._lent.setdefault(identity, []).append((key, slot))

    def take_back(self, identity: Identity) -> bool:
        """Whether it was lent; it is one time less now."""
        users = self._lent.get(identity)
        if not users:
            return False
        users.pop()
        if not users:
            del self._lent[identity]
        return True

    def drop(self, key: RequestKey | None = None) -> Sequence[Slot]:
        """What was lent to the request, or to all, and of which nothing more is to be heard."""
        dropped: list[Slot] = []
        for identity, users in list(self._lent.items()):
            dropped += [slot for of, slot in users if key is None or of == key]
            self._lent[identity] = [user for user in users if key is not None and user[0] != key]
            if not self._lent[identity]:
                del self._lent[identity]
        return dropped
