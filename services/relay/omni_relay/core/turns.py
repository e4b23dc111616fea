"""Whose piece goes next over a connection.

Requests take turns, one piece each, so that a large tensor of one delays a small one of another by a piece at most.
Within a request transfers go one after the other, since the first one complete is of more use than two halves; within
a transfer pieces go in order, but for one that is sent again, which goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from omni_common.request import RequestKey

# Bytes of a piece at most: about 200 µs of a fast network.
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of a transfer's bytes. `first` is that of a transfer nothing of which has been sent."""

    transfer: int
    offset: int
    length: int
    first: bool = False


@dataclass(slots=True)
class _Transfer:
    key: RequestKey
    length: int
    next: int = 0
    begun: bool = False
    again: list[Turn] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.begun and self.next == self.length and not self.again


class Turns:
    """The transfers of one connection that have space and pieces left to send. While only one request has any, its
    pieces may be `alone` bytes long: fewer of them cost less, and who comes meanwhile waits for the one that is out."""

    def __init__(self, piece: int = PIECE) -> None:
        self._piece = piece
        self.alone = piece
        self._transfers: dict[int, _Transfer] = {}
        self._requests: OrderedDict[RequestKey, OrderedDict[int, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, transfer: int, key: RequestKey, length: int) -> None:
        """A new transfer; one without bytes has one turn all the same. Raises ValueError if it is queued already."""
        if transfer in self._transfers:
            raise ValueError(f"transfer {transfer} is queued already")
        self._queue(transfer, _Transfer(key, length))

    def again(self, transfer: int, key: RequestKey, offset: int, length: int) -> None:
        """A stretch that was sent before goes once more, as one piece, before the rest of its transfer."""
        if transfer not in self._transfers:
            self._queue(transfer, _Transfer(key, 0, begun=True))
        self._transfers[transfer].again.append(Turn(transfer, offset, length))

    def take(self) -> Turn | None:
        """The next piece; None when there is none."""
        if not self._requests:
            return None
        key, queue = next(iter(self._requests.items()))
        self._requests.move_to_end(key)
        transfer = next(iter(queue))
        state = self._transfers[transfer]
        turn = self._next(transfer, state)
        if state.over:
            self.drop(transfer)
        return turn

    def drop(self, transfer: int) -> None:
        """Nothing more of it is sent. Unknown ones are ignored."""
        state = self._transfers.pop(transfer, None)
        if state is None:
            return
        queue = self._requests[state.key]
        del queue[transfer]
        if not queue:
            del self._requests[state.key]

    def _queue(self, transfer: int, state: _Transfer) -> None:
        self._transfers[transfer] = state
        self._requests.setdefault(state.key, OrderedDict())[transfer] = None

    def _next(self, transfer: int, state: _Transfer) -> Turn:
        if state.again:
            return state.again.pop(0)
        most = self.alone if len(self._requests) == 1 else self._piece
        turn = Turn(transfer, state.next, min(most, state.length - state.next), first=not state.begun)
        state.begun = True
        state.next += turn.length
        return turn
