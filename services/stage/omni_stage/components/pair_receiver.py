"""The receiving end of a pair: asks one process for its tensors, one after the other."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.expendable import Expendable, Stuck
from omni_stage.components.pair_group import RECEIVER, Group, GroupFailed, MakeGroup, NoMemory
from omni_stage.components.pair_line import Kind, Line, LineLost, Message, dial, meeting

logger = logging.getLogger(__name__)

# Wishes that wait at a time; those of one edge are bounded by its credits, so this is for edges gone wild.
MAX_WAITING = 1024

# Seconds that one tensor may take, and the meeting of the ends: a thousand times what a gigabyte takes between GPUs,
# and little enough that the next transport has time left.
TIMEOUT = 5.0


# Seconds that a pair rests once it has failed; twice as long each time until it works again.
FIRST_REST = 1.0
LAST_REST = 60.0


class PairFailed(Exception):
    """This tensor does not come through the pair; it may come another way. Completes "the pair …"."""


Ended = Callable[[TorchMemory | PairFailed], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    number: int
    length: int
    deadline: Deadline
    ended: Ended


class PairReceiver:
    """The way from one process. It fetches in the order in which it is asked to, memory first; a wish that was
    cancelled is skipped. When the pair fails, the transfer under way has failed, and for a while all that is asked for
    fails at once, to come another way; then the two ends meet anew.

    Thread-safe. A thread of its own works; `ended` is called there, once for each wish, by its deadline or soon after.
    """

    def __init__(
        self,
        folder: Path,
        owner: int,
        make: MakeGroup,
        *,
        prepare: Callable[[], None] = lambda: None,
        timeout: float = TIMEOUT,
        first_rest: float = FIRST_REST,
        clock: Clock = monotonic,
    ) -> None:
        """`owner` is the sending process's; `prepare` chooses the device of a thread."""
        self._folder = folder
        self._owner = owner
        self._make = make
        self._timeout = timeout
        self._clock = clock
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._expendable = Expendable("pair", prepare)
        self._line: Line | None = None
        self._group: Group | None = None
        self._at: Path | None = None
        self._rest = first_rest
        self._first_rest = first_rest
        self._rests_until = -inf
        threading.Thread(target=self._run, name="pair-receiver", daemon=True).start()

    def fetch(self, number: int, length: int, deadline: Deadline, ended: Ended) -> None:
        """No number is asked for again before it has ended."""
        with self._lock:
            full = len(self._waiting) >= MAX_WAITING
            if not full:
                self._waiting.add(number)
        if full:
            ended(PairFailed("has too much to do"))
        else:
            self._wishes.put(_Wish(number, length, deadline, ended))

    def cancel(self, number: int) -> None:
        """Nobody wants it any more; `ended` is called all the same."""
        with self._lock:
            self._waiting.discard(number)

    def close(self) -> None:
        """Ends it after what has been asked for."""
        self._wishes.put(None)

    # In the thread.

    def _run(self) -> None:
        while (wish := self._wishes.get()) is not None:  # no deadline: there may be nothing to do for long
            wish.ended(self._try(wish))
            del wish
        self._drop()
        self._expendable.close()

    def _try(self, wish: _Wish) -> TorchMemory | PairFailed:
        with self._lock:
            wanted = wish.number in self._waiting
            self._waiting.discard(wish.number)
        if not wanted:
            return PairFailed("is no longer asked for it")
        if wish.deadline.passed:
            return PairFailed("came to it too late")
        if self._clock() < self._rests_until:
            return PairFailed("has failed just now")
        try:
            memory = self._fetch(wish, wish.deadline.sooner(self._timeout))
        except (_Gone, NoMemory) as error:
            return PairFailed(str(error))
        except (LineLost, GroupFailed, Stuck) as error:
            logger.warning("a pair failed", extra={"owner": self._owner, "why": str(error)})
            self._drop()
            self._rests_until = self._clock() + self._rest
            self._rest = min(LAST_REST, self._rest * 2)
            return PairFailed(str(error))
        self._rest = self._first_rest
        return memory

    def _fetch(self, wish: _Wish, deadline: Deadline) -> TorchMemory:
        line, group = self._meet(deadline)
        flat = self._expendable.call(lambda: group.allocate(wish.length), deadline)
        line.send(Message(Kind.FETCH, wish.number, wish.length, deadline.remaining), deadline)
        answer = line.receive(deadline)
        if answer.number != wish.number or answer.kind not in {Kind.COMES, Kind.GONE}:
            raise LineLost("got an answer to another question")
        if answer.kind is Kind.GONE:
            raise _Gone("no longer has it")
        return self._expendable.call(
            lambda: group.receive(flat, deadline), deadline, is_vain=line.is_cut, interrupt=group.interrupt
        )

    def _meet(self, deadline: Deadline) -> tuple[Line, Group]:
        if self._line is not None and self._group is not None:
            return self._line, self._group
        line = self._line = dial(self._folder, self._owner, deadline)
        number = secrets.randbits(64)
        at = self._at = meeting(self._folder, number)
        line.send(Message(Kind.MEET, number, seconds=deadline.remaining), deadline)
        self._group = self._expendable.call(lambda: self._make(at, RECEIVER, deadline), deadline, is_vain=line.is_cut)
        return line, self._group

    def _drop(self) -> None:
        """The next wish meets anew."""
        line, group = self._line, self._group
        self._line = self._group = None
        if line is not None:
            line.close()
        if group is not None:
            end_group(self._expendable, group, self._clock)
        if self._at is not None:
            self._at.unlink(missing_ok=True)


class _Gone(Exception):
    """It was withdrawn."""


def end_group(expendable: Expendable, group: Group, clock: Clock) -> None:
    try:
        expendable.call(group.close, Deadline.after(TIMEOUT, clock))
    except (GroupFailed, Stuck) as error:
        logger.warning("a pair did not end well", extra={"why": str(error)})
