"""The pushes of one connection, from their submission to their end: who waits for space, whose piece goes next, what
the other relay has said. Pure: what to send comes out of `next`, what has ended out of `take_ended`.

A push ends exactly once, by whatever comes first: the other relay's word, its own deadline, its being cancelled, the
loss of the connection. While a piece of it is *in hand* (being sent, so its bytes are being read) the verdict is kept
until `sent`. Its space in the other arena is another matter: once it has begun there, the space is free when the other
relay says that the transfer has ended badly, or that the consumer has released the tensor, and never before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from omni_common.arena.extents import Extent
from omni_common.errors import Cancelled, DeadlineExceeded, OmniError, Overloaded
from omni_common.request import RequestKey
from omni_relay.core.allotment import Allotment, Place
from omni_relay.core.misbehaviour import Misbehaved
from omni_relay.core.turns import PIECE, Turns

# Seconds for which nothing may be under way or come free while somebody waits. Then its transfer goes another way:
# pods whose stages hold space of each other's arenas would wait in a circle.
STANDSTILL = 1.0


@dataclass(frozen=True, slots=True)
class Want:
    """Ask for an extent."""

    size: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Return an extent."""

    extent: int


@dataclass(frozen=True, slots=True)
class CancelBegun:
    """Say that a transfer is given up."""

    number: int


@dataclass(frozen=True, slots=True)
class SendPiece:
    """Send a stretch of a push's bytes, after announcing the transfer if `begins`. To be answered by `sent`.

    `waited` is how long the push waited for space, in seconds.
    """

    push: int
    number: int
    place: Place
    offset: int
    length: int
    begins: bool
    waited: float


Unit = Want | GiveBack | CancelBegun | SendPiece


@dataclass(slots=True)
class _Push:
    key: RequestKey
    length: int
    deadline: float
    submitted: float
    place: Place | None = None
    freed: bool = False
    """The other relay has said that nothing lies there any more."""
    placed: float = 0.0
    number: int = 0
    resent: bool = False
    in_hand: bool = False
    over: bool = False
    """Its verdict is known; what it still has in the other arena is not its owner's concern."""
    closed: bool = False
    """The other relay has said that it has ended."""

    @property
    def begun(self) -> bool:
        return self.number > 0


class Sending:
    """See the module. `piece` is the most bytes of one SendPiece."""

    def __init__(self, piece: int = PIECE) -> None:
        self._piece = piece
        self._pushes: dict[int, _Push] = {}
        self._numbers: dict[int, int] = {}  # of transfers that the other relay has not ended, to pushes
        self._places: dict[Place, int] = {}  # that are the other relay's to free, to pushes
        self._last = 0
        self._turns = Turns(piece)
        self._allotment = Allotment()
        self._units: deque[Unit] = deque()
        self._ended: list[tuple[int, OmniError | None]] = []
        self._verdicts: dict[int, OmniError | None] = {}
        self._moved = inf  # a connection that is not there yet does not stand still
        self._lost: OmniError | None = None

        self.live = 0
        """Pushes that have not ended."""
        self.unanswered = 0
        """Bytes of the transfers that have begun and that the other relay has not ended."""

    @property
    def idle(self) -> bool:
        """Nothing is left to send."""
        return not self._units and not len(self._turns)

    @property
    def held(self) -> int:
        """Bytes of the extents that the other relay has granted."""
        return self._allotment.held

    def open(self, now: float, alone: int = 0) -> None:
        """The connection is there: from now on those who wait, wait for the other relay. A request that has it for
        itself has pieces of `alone` bytes, if that is more."""
        self._moved = now
        self._turns.alone = max(self._piece, alone)

    def submit(self, push: int, key: RequestKey, length: int, *, deadline: float, now: float) -> None:
        """A new push, under a name of its own. Its verdict comes out of `take_ended`."""
        self._pushes[push] = _Push(key, length, deadline, now)
        self.live += 1
        if self._lost is not None:
            self._end(push, self._lost)
        elif deadline <= now:
            self._end(push, DeadlineExceeded())
        else:
            if not self._allotment.waiting and self._moved < now:
                self._moved = now
            self._allotment.ask(push, key, length)
            self._place(now)

    def cancel(self, push: int) -> None:
        """Unknown ones and those that have ended are ignored."""
        self._give_up(push, Cancelled())

    def expire(self, now: float) -> None:
        """To be called every fraction of a second: ends what is late, and returns what lies idle."""
        late = [name for name, push in self._pushes.items() if not push.over and push.deadline <= now]
        for name in late:
            self._give_up(name, DeadlineExceeded())
        if self.unanswered:
            self._moved = now  # slowly, perhaps; what is under way will be freed
        if now - self._moved >= STANDSTILL:
            stuck = [name for name in list(self._allotment.waiting) if now - self._pushes[name].submitted >= STANDSTILL]
            for name in stuck:
                self._give_up(name, Overloaded("The other pod has no room for a tensor just now."))
        self._place(now)
        self._give_back(now)

    def lose(self, error: OmniError) -> None:
        """The connection is gone: everything ends with `error`, also what is submitted later."""
        self._lost = error
        self._units.clear()
        for name in list(self._pushes):
            self._turns.drop(name)
            self._allotment.withdraw(name)
            self._pushes[name].closed = True
            self._end(name, error)
        self._numbers.clear()
        self._places.clear()
        self.unanswered = 0

    def take_ended(self) -> list[tuple[int, OmniError | None]]:
        """The pushes that have ended since the last call, each with its error, None for success."""
        ended, self._ended = self._ended, []
        return ended

    # What is sent

    def next(self) -> Unit | None:
        """What to send next. A SendPiece is in hand until `sent`; there is one at a time."""
        if self._units:
            return self._units.popleft()
        turn = self._turns.take()
        if turn is None:
            return None
        push = self._pushes[turn.transfer]
        assert push.place is not None  # noqa: S101  # only who has a place is in `_turns`
        if turn.first:
            self._last += 1
            push.number = self._last
            self._numbers[push.number] = self._places[push.place] = turn.transfer
            self.unanswered += push.length
        push.in_hand = True
        waited = push.placed - push.submitted
        return SendPiece(turn.transfer, push.number, push.place, turn.offset, turn.length, turn.first, waited)

    def sent(self, push: int, now: float) -> None:
        """The piece in hand is out, or lost: nothing reads the push's bytes now."""
        state = self._pushes[push]
        state.in_hand = False
        if state.over:
            self._report(push)
            self._settle(push)
            self._place(now)

    # What the other relay says; each raises Misbehaved where it cannot be true.

    def granted(self, extent: Extent, now: float) -> None:
        """An extent to push into."""
        self._allotment.grant(extent)
        self._moved = now
        self._place(now)

    def refused(self, size: int, now: float) -> None:
        """There can never be an extent of that size."""
        for name in self._allotment.refuse(size):
            self._end(name, Overloaded("The other pod's arena has no room for a tensor of this size."))
        self._place(now)

    def freed(self, place: Place, now: float) -> None:
        """The consumer has released what lay there. It may come before the word that the transfer has ended."""
        name = self._places.pop(place, None)
        if name is None:
            raise Misbehaved("freed space that was not in use")
        if (push := self._pushes.get(name)) is not None:
            push.freed = True
        self._allotment.free(place)
        self._moved = now
        self._place(now)

    def answered(self, number: int, error: OmniError | None, now: float) -> None:
        """A transfer has ended: its consumer has it, or its space is free."""
        name = self._numbers.get(number)
        if name is None:
            raise Misbehaved(f"ended transfer {number}, which is not under way")
        push = self._pushes[name]
        if error is not None and push.freed:
            raise Misbehaved(f"failed transfer {number}, whose space it had freed as its consumer's")
        del self._numbers[number]
        push.closed = True
        self.unanswered -= push.length
        self._turns.drop(name)
        if error is None:
            push.place = None  # freed when its consumer releases it
        elif push.place is not None:
            self._places.pop(push.place, None)  # free with this word
        self._end(name, error)
        self._place(now)

    def resend(self, number: int, offset: int, length: int) -> None:
        """A piece came damaged."""
        name = self._numbers.get(number)
        if name is None:
            raise Misbehaved(f"asked for a piece of transfer {number}, which is not under way")
        push = self._pushes[name]
        if push.resent or not 0 < length <= self._turns.alone or offset + length > push.length:
            raise Misbehaved("asked for a piece that it cannot ask for")
        push.resent = True
        if not push.over:
            self._turns.again(name, push.key, offset, length)

    # How pushes end

    def _give_up(self, name: int, error: OmniError) -> None:
        push = self._pushes.get(name)
        if push is None or push.over:
            return
        self._turns.drop(name)
        self._allotment.withdraw(name)
        if push.begun:
            self._units.append(CancelBegun(push.number))
        self._end(name, error)

    def _end(self, name: int, error: OmniError | None) -> None:
        push = self._pushes[name]
        if not push.over:
            push.over = True
            self.live -= 1
            self._verdicts[name] = error
        if not push.in_hand:
            self._report(name)
            self._settle(name)

    def _report(self, name: int) -> None:
        if name in self._verdicts:
            self._ended.append((name, self._verdicts.pop(name)))

    def _settle(self, name: int) -> None:
        """Frees its place unless the other relay may still write there, and forgets it when nothing is left of it."""
        push = self._pushes[name]
        if push.begun and not push.closed:
            return
        if push.place is not None and not push.freed and self._lost is None:
            self._allotment.free(push.place)
        del self._pushes[name]

    def _place(self, now: float) -> None:
        if self._lost is not None or not self._allotment.waiting:
            return
        for name, place in self._allotment.place():
            push = self._pushes[name]
            push.place, push.placed = place, now
            self._turns.add(name, push.key, push.length)
        if self._allotment.waiting:
            wants = self._allotment.wants(now)
            self._give_back(now)
            self._units.extend(map(Want, wants))  # after what goes back: a large extent may be made of it

    def _give_back(self, now: float) -> None:
        if self._lost is None:
            self._units.extend(map(GiveBack, self._allotment.give_back(now)))
