"""A request over its attempts: events in, commands out.

    live ── a replica is lost ─▶ between   the attempt is aborted; Rebind
    between ── Rebound ────────▶ live      Dispatch of the next attempt, held against what the caller has
    between ── Unbound ────────▶ ended     Fail

A stage that may send nothing could not even make again what the caller has: as long as the caller has no room, the next
attempt is bound but not begun.

What the caller has already is credited back to the stage that has made it again; at the first difference the request
fails. The caller gets one end, outputs without gaps in their numbers, and no more of them than it has room for. An
attempt is settled when nothing of it is left in any replica; once another one goes on, its events change nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omni_common.errors import StageUnavailable
from omni_common.request import Modality
from omni_coordinator.core.events import (
    AbortTimedOut,
    Bound,
    Command,
    Event,
    Fail,
    Finish,
    OutputMade,
    OutputRead,
    ReplicaLost,
    SendOutput,
    StageFailed,
    Started,
    Superseded,
    TerminalDone,
)
from omni_coordinator.core.failover import FailedOver, Failover, Loss, Rebind, Rebound, Step, Unbound, loss_in
from omni_coordinator.core.request import Phase, Request
from omni_coordinator.core.stream import Stream
from omni_coordinator.core.tracks import Differs


class Life:
    """One request, bound to one replica of each stage that it may visit, for each of its attempts."""

    def __init__(self, entry: str, bound: tuple[Bound, ...], *, output_credits: int, max_attempts: int) -> None:
        self._entry = entry
        self._max_attempts = max_attempts
        self._streams = {
            b.stage: Stream(b.terminal, output_credits, keep=max_attempts > 1) for b in bound if b.terminal is not None
        }
        self._attempts = [Request(entry, bound)]
        self._avoided: set[int] = set()
        self._between: Loss | None = None
        self._resuming = ""
        self._ended = False

    @property
    def attempt(self) -> int:
        """The latest, from 0."""
        return len(self._attempts) - 1

    @property
    def credit(self) -> int:
        """What the terminal stages of an attempt may send that begins now."""
        return min((s.room for s in self._streams.values() if not s.done), default=1)

    @property
    def is_over(self) -> bool:
        return self._ended and all(attempt.phase is Phase.OVER for attempt in self._attempts)

    def handle(self, event: Event | Rebound | Unbound, attempt: int | None = None) -> list[Step]:
        """`attempt` is the one that the event is about; None stands for all."""
        match event:
            case Rebound(bound):
                return self._rebound(bound)
            case Unbound(why):
                return self._unbound(why)
            case Started():
                return self._begin()
            case OutputRead(text, audio):
                return self._read(text, audio)
            case ReplicaLost() | AbortTimedOut() if attempt is None:
                return [step for number in range(len(self._attempts)) for step in self.handle(event, number)]
            case _ if attempt is None or attempt == self.attempt:
                return self._now(event)
            case _ if 0 <= attempt < self.attempt:
                return self._of(attempt, self._attempts[attempt].handle(event))
            case _:
                return []

    # The attempt that goes on.

    def _now(self, event: Event) -> list[Step]:
        request = self._attempts[-1]
        if request.phase in (Phase.ENDING, Phase.OVER):
            return self._feed(event)
        loss = loss_in(event, request)
        if loss is not None:
            return self._lose(loss, event)
        if not isinstance(event, OutputMade | TerminalDone):
            return self._feed(event)
        try:
            return self._output(event) if isinstance(event, OutputMade) else self._terminal_done(event)
        except Differs:
            return self._diverge(event.replica)

    def _feed(self, event: Event) -> list[Step]:
        steps = self._of(self.attempt, self._attempts[-1].handle(event))
        if any(isinstance(command, Finish | Fail) for _, command in steps):
            self._ended = True
            return [*self._resumed(Failover.INTERRUPTED), *steps]
        return steps

    def _of(self, attempt: int, commands: Iterable[Command]) -> list[Step]:
        return [(attempt, command) for command in commands]

    def _output(self, event: OutputMade) -> list[Step]:
        steps = self._feed(event)
        if not any(isinstance(command, SendOutput) for _, command in steps):
            return steps
        stream = self._streams[self._stage(event.replica)]
        fresh = stream.take(event.output)
        sent = [] if fresh is None else self._of(self.attempt, [fresh])
        return [*sent, *self._resumed(Failover.RESUMED), *self._lend(stream)]

    def _terminal_done(self, event: TerminalDone) -> list[Step]:
        if (stream := self._streams.get(self._stage(event.replica))) is not None:
            stream.end()
        return [*self._resumed(Failover.RESUMED), *self._feed(event)]

    def _read(self, text: int, audio: int) -> list[Step]:
        read = {Modality.TEXT: text, Modality.AUDIO: audio}
        for stream in self._streams.values():
            stream.room += read.get(stream.modality, 0)
        if self._attempts[-1].phase is Phase.NEW:
            return self._begin()
        return [step for stream in self._streams.values() for step in self._lend(stream)]

    def _lend(self, stream: Stream) -> list[Step]:
        credit = stream.owed() if self._attempts[-1].phase is Phase.LIVE else 0
        if not credit:
            return []
        is_audio = stream.modality is Modality.AUDIO
        return self._feed(OutputRead(audio=credit) if is_audio else OutputRead(text=credit))

    def _stage(self, replica: int) -> str:
        bound = self._attempts[-1].bound.get(replica)
        return "" if bound is None else bound.stage

    # A replica that is lost.

    def _lose(self, loss: Loss, event: Event) -> list[Step]:
        outcome = None
        if len(self._attempts) >= self._max_attempts:
            outcome = Failover.EXHAUSTED
        elif not all(stream.transcript.is_whole for stream in self._streams.values()):
            outcome = Failover.NOT_KEPT
        interrupted = self._resumed(Failover.INTERRUPTED)
        if outcome is not None:
            return [*interrupted, (self.attempt, FailedOver(loss.stage, outcome)), *self._feed(event)]
        if loss.replica is not None:
            self._avoided.add(loss.replica)
        self._between = loss
        aborted = self._feed(Superseded(loss.replica if loss.gone else None))
        return [*interrupted, *aborted, (self.attempt, Rebind(frozenset(self._avoided)))]

    def _rebound(self, bound: tuple[Bound, ...]) -> list[Step]:
        loss, self._between = self._between, None
        if loss is None:
            raise RuntimeError("nobody asked for other replicas")
        self._attempts.append(Request(self._entry, bound))
        if all(stream.transcript.is_empty for stream in self._streams.values()):
            begun: Sequence[Step] = [(self.attempt, FailedOver(loss.stage, Failover.RERUN))]
        else:
            self._resuming, begun = loss.stage, ()
        return [*begun, *self._begin()]

    def _begin(self) -> list[Step]:
        credit = self.credit
        if not credit:
            return []
        for stream in self._streams.values():
            stream.begin(credit, reached=not self.attempt)
        return self._feed(Started(credit))

    def _unbound(self, why: Failover) -> list[Step]:
        loss, self._between = self._between, None
        if loss is None:
            raise RuntimeError("nobody asked for other replicas")
        self._ended = True
        return [(self.attempt, FailedOver(loss.stage, why)), (self.attempt, Fail(loss.error))]

    def _diverge(self, replica: int) -> list[Step]:
        stage = self._resuming or self._stage(replica)
        error = StageUnavailable(stage, "lost the replica that served this request, and another answers differently")
        return [*self._resumed(Failover.DIVERGED), *self._feed(StageFailed(replica, error))]

    def _resumed(self, outcome: Failover) -> list[Step]:
        """What became of the attempt to resume, once that is known."""
        if not self._resuming:
            return []
        if outcome is Failover.RESUMED and not all(stream.is_through for stream in self._streams.values()):
            return []
        stage, self._resuming = self._resuming, ""
        return [(self.attempt, FailedOver(stage, outcome))]
