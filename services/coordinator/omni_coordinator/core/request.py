"""One attempt at a request: events in, commands out. `life.py` has the request over its attempts.

    live ── every terminal stage done ──────────────────▶ over     Finish, Release
    live ── failure, deadline, caller gone, replica lost ▶ ending   Fail, AbortReplica for each bound replica
    live ── another attempt takes its place ─────────────▶ ending   AbortReplica for each bound replica
    ending ── every replica answered, was lost, or late ─▶ over     Release

The caller is answered at once; the request's place is free again only when nothing of it is left in any replica. An
event that comes after the end it belongs to changes nothing, and so does one from a replica that the request is not
bound to.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from omni_common.errors import Cancelled, DeadlineExceeded, Internal, OmniError, Reason, StageUnavailable
from omni_common.request import FinishReason, Modality, Output, StageReport, TerminalResult, Usage
from omni_coordinator.core.events import (
    AbortAcked,
    AbortReplica,
    AbortTimedOut,
    Bound,
    CallerGone,
    Command,
    DeadlinePassed,
    Dispatch,
    Event,
    Fail,
    Finish,
    Finished,
    GrantOutput,
    OutputMade,
    OutputRead,
    Release,
    ReplicaLost,
    SendOutput,
    StageFailed,
    Started,
    Stopping,
    Superseded,
    TerminalDone,
)


class Phase(Enum):
    NEW = auto()
    LIVE = auto()
    ENDING = auto()
    OVER = auto()


class Request:
    """One attempt at one request, bound to one replica of each stage that it may visit."""

    def __init__(self, entry: str, bound: tuple[Bound, ...]) -> None:
        self._entry = next(b.replica for b in bound if b.stage == entry)
        self._bound: Mapping[int, Bound] = {b.replica: b for b in bound}
        self._credits = {b.replica: 0 for b in bound if b.terminal is not None}
        self._sent = dict.fromkeys(self._credits, 0)
        self._results: dict[int, TerminalResult] = {}
        self._gone: set[int] = set()
        self._unanswered: set[int] = set()
        self.phase = Phase.NEW

    @property
    def bound(self) -> Mapping[int, Bound]:
        return self._bound

    def is_done(self, replica: int) -> bool:
        """Whether it is a terminal that has sent all that it had to."""
        return replica in self._results

    def handle(self, event: Event) -> list[Command]:
        match self.phase:
            case Phase.OVER:
                return []  # a late event after the end changes nothing
            case Phase.ENDING:
                return self._settle(event)
            case Phase.NEW | Phase.LIVE:
                return self._live(event)

    def _live(self, event: Event) -> list[Command]:
        match event:
            case Started(output_credits):
                if self.phase is not Phase.NEW:
                    raise RuntimeError("a request starts once")
                self.phase = Phase.LIVE
                self._credits = dict.fromkeys(self._credits, output_credits)
                return [Dispatch(self._entry)]
            case OutputRead(text, audio):
                return self._grant(text, audio)
            case CallerGone():
                return self._end(Cancelled())
            case DeadlinePassed():
                return self._end(DeadlineExceeded())
            case Stopping():
                return self._end(_stopping())
            case Superseded(lost):
                return self._abort(lost)
            case AbortAcked() | AbortTimedOut():
                return []
            case _:
                bound = self._bound.get(event.replica)
                return self._from_stage(bound, event) if bound is not None else []

    def _from_stage(self, bound: Bound, event: OutputMade | TerminalDone | StageFailed | ReplicaLost) -> list[Command]:
        match event:
            case OutputMade(_, index, output):
                return self._output(bound, index, output)
            case TerminalDone(_, result):
                return self._terminal_done(bound, result)
            case StageFailed(_, error):
                return self._end(error)
            case ReplicaLost(replica) if replica in self._results:
                self._gone.add(replica)  # what it had to send is here
                return []
            case ReplicaLost(replica):
                return self._end(replica_lost(bound.stage), replica)

    def _output(self, bound: Bound, index: int, output: Output) -> list[Command]:
        if bound.replica not in self._credits or bound.replica in self._results:
            return self._end(Internal(f"Stage '{bound.stage}' sent output that was not its turn to send."))
        expected = self._sent[bound.replica]
        if index < expected:
            return []  # delivered before
        if index > expected:
            return self._end(Internal(f"Output {expected} of stage '{bound.stage}' is missing."))
        if not self._credits[bound.replica]:
            return self._end(Internal(f"Stage '{bound.stage}' sent more output than it had credits for."))
        self._credits[bound.replica] -= 1
        self._sent[bound.replica] += 1
        return [SendOutput(index, output)]

    def _grant(self, text: int, audio: int) -> list[Command]:
        commands: list[Command] = []
        for replica in self._credits:
            match self._bound[replica].terminal:
                case Modality.TEXT if text:
                    commands.append(GrantOutput(replica, text=text, audio=0))
                    self._credits[replica] += text
                case Modality.AUDIO if audio:
                    commands.append(GrantOutput(replica, text=0, audio=audio))
                    self._credits[replica] += audio
        return commands

    def _terminal_done(self, bound: Bound, result: TerminalResult) -> list[Command]:
        if bound.replica not in self._credits:
            return self._end(Internal(f"Stage '{bound.stage}' sent a result that the caller did not ask for."))
        self._results.setdefault(bound.replica, result)
        if self._results.keys() != self._credits.keys():
            return []
        self.phase = Phase.OVER
        return [Finish(merge([self._results[replica] for replica in self._credits])), Release()]

    def _end(self, error: OmniError, lost: int | None = None) -> list[Command]:
        return [Fail(error), *self._abort(lost)]

    def _abort(self, lost: int | None) -> list[Command]:
        there = [replica for replica in self._bound if replica != lost and replica not in self._gone]
        self._unanswered = set(there)
        self.phase = Phase.ENDING
        return [*map(AbortReplica, there), *self._release_if_settled()]

    def _settle(self, event: Event) -> list[Command]:
        match event:
            case AbortAcked(replica) | ReplicaLost(replica):
                self._unanswered.discard(replica)
                return self._release_if_settled()
            case AbortTimedOut():
                self.phase = Phase.OVER
                return [Release(frozenset(self._unanswered))]
            case _:
                return []  # made before the abort was known

    def _release_if_settled(self) -> list[Command]:
        if self._unanswered:
            return []
        self.phase = Phase.OVER
        return [Release()]


def merge(results: list[TerminalResult]) -> Finished:
    """One answer from all terminal stages: the first finish reason, all usage, the fullest report of each stage."""
    reason = next((r.finish_reason for r in results if r.finish_reason is not None), FinishReason.STOP)
    reports: dict[str, StageReport] = {}
    for report in (report for result in results for report in result.reports):
        known = reports.get(report.stage)
        if known is None or known.end < report.end:
            reports[report.stage] = report
    return Finished(
        finish_reason=reason,
        usage=sum((result.usage for result in results), start=Usage()),
        reports=tuple(sorted(reports.values(), key=lambda report: (report.first_input, report.stage))),
    )


def replica_lost(stage: str) -> OmniError:
    return StageUnavailable(stage, "lost the replica that served this request")


def _stopping() -> OmniError:
    return OmniError(Reason.STAGE_UNAVAILABLE, "The coordinator of this request is stopping; try again.")
