"""The sending end of the pairs of one process: offers tensors, and sends each to whoever asks for it first."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.expendable import Expendable, Stuck
from omni_stage.components.pair_group import SENDER, Group, GroupFailed, MakeGroup
from omni_stage.components.pair_line import FOLDER, Kind, Line, LineLost, Message, listen, meeting
from omni_stage.components.pair_receiver import TIMEOUT, end_group

logger = logging.getLogger(__name__)

# Receivers at a time: many times the stages of any pod.
MAX_PEERS = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    memory: TorchMemory
    sent: Callable[[], None]


class PairSender:
    """Tensors that other processes may fetch, each once. An offer stands until its tensor was sent whole, or it is
    withdrawn: one whose pair failed can go another way. What is offered is bounded by the credits of its edges.

    Thread-safe. A thread for each receiver works, and one takes them in; `sent` is called there.
    """

    def __init__(
        self,
        folder: Path,
        owner: int,
        make: MakeGroup,
        *,
        prepare: Callable[[], None] = lambda: None,
        timeout: float = TIMEOUT,
        clock: Clock = monotonic,
    ) -> None:
        """`owner` names this process; `prepare` chooses the device of a thread. Raises OSError."""
        self._folder = folder
        self._owner = owner
        self._make = make
        self._prepare = prepare
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._offers: dict[int, _Offer] = {}
        self._lines: set[Line] = set()
        self._listener = listen(folder, owner)
        threading.Thread(target=self._accept, name="pair-sender", daemon=True).start()

    def __len__(self) -> int:
        """Offers that stand."""
        with self._lock:
            return len(self._offers)

    def offer(self, number: int, memory: TorchMemory, sent: Callable[[], None]) -> None:
        with self._lock:
            self._offers[number] = _Offer(memory, sent)

    def withdraw(self, number: int) -> bool:
        """Whether the offer stood. One that is being sent is sent to its end, and nobody is told."""
        with self._lock:
            return self._offers.pop(number, None) is not None

    def close(self) -> None:
        """Nobody can fetch any more; what is under way ends soon."""
        with suppress(OSError):  # it may have been cut already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        (self._folder / FOLDER / f"{self._owner:016x}.sock").unlink(missing_ok=True)
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.cut()

    # In the threads.

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()  # no deadline: there may be nobody for long
            except OSError:
                return  # closed
            line = Line(sock)
            with self._lock:
                too_many = len(self._lines) >= MAX_PEERS
                if not too_many:
                    self._lines.add(line)
            if too_many:
                line.close()
            else:
                threading.Thread(target=self._serve, args=(line,), name="pair-sender", daemon=True).start()

    def _serve(self, line: Line) -> None:
        with ExitStack() as undo:
            undo.callback(self._leave, line)
            expendable = Expendable("pair", self._prepare)
            undo.callback(expendable.close)
            try:
                group = self._meet(line, expendable, undo)
                while True:
                    self._answer(line, group, expendable)
            except LineLost as error:
                logger.debug("a pair ended", extra={"why": str(error)})
            except (GroupFailed, Stuck) as error:
                logger.warning("a pair failed", extra={"why": str(error)})
            line.cut()  # first of all: the other end waits for bytes

    def _leave(self, line: Line) -> None:
        with self._lock:
            self._lines.discard(line)
        line.close()

    def _meet(self, line: Line, expendable: Expendable, undo: ExitStack) -> Group:
        deadline = Deadline.after(self._timeout, self._clock)
        asked = line.receive(deadline)
        if asked.kind is not Kind.MEET:
            raise LineLost("began with something else than a meeting")
        at = meeting(self._folder, asked.number)
        undo.callback(at.unlink, missing_ok=True)  # not before: torch looks there as long as the other end has not met
        group = expendable.call(lambda: self._make(at, SENDER, deadline), deadline, is_vain=line.is_cut)
        undo.callback(end_group, expendable, group, self._clock)
        return group

    def _answer(self, line: Line, group: Group, expendable: Expendable) -> None:
        asked = line.receive(None)
        deadline = Deadline.after(min(self._timeout, asked.seconds), self._clock)
        if asked.kind is not Kind.FETCH:
            raise LineLost("asked for something else than a tensor")
        with self._lock:
            offer = self._offers.get(asked.number)
        if offer is None or offer.memory.nbytes != asked.length:
            line.send(Message(Kind.GONE, asked.number), deadline)
            return
        line.send(Message(Kind.COMES, asked.number, asked.length), deadline)
        memory = offer.memory
        expendable.call(lambda: group.send(memory, deadline), deadline, is_vain=line.is_cut, interrupt=group.interrupt)
        if self.withdraw(asked.number):
            offer.sent()
