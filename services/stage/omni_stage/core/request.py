"""The life of one request in one stage: events in, commands out.

A request joins its payloads, runs in the scheduler, streams and routes its result, and ends in one of three ways:

* finished: its result has left the scheduler; until its input streams are done, late chunks are drained and paid for,
  because an upstream stage that still streams must not wait for credit that nobody would return, and until what it
  sent has arrived, it can still be found lost;
* failed: the coordinator is told once and will abort the request everywhere;
* aborted: the scheduler drops it, then the abort is acknowledged.

Late events after an end change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from omni_common.errors import Internal, OmniError
from omni_common.request import StageReport
from omni_stage.core.events import (
    CALLER,
    AbortAsked,
    AbortScheduler,
    AckAbort,
    AwaitDelivery,
    Begin,
    ChunkArrived,
    Command,
    CreditGranted,
    Delivered,
    DoneArrived,
    Emitted,
    Event,
    FailedHere,
    Finished,
    Forget,
    InputConsumed,
    Introduced,
    PassChunk,
    PassDone,
    PauseScheduler,
    PayloadArrived,
    ResumeScheduler,
    ReturnCredit,
    SchedulerDropped,
    SendCompleted,
    SendDone,
    SendFailed,
    SendLost,
    SendPayload,
)
from omni_stage.core.inflow import FanIn, Inflow, stray
from omni_stage.core.outflow import BacklogOverflow, Outflow

if TYPE_CHECKING:
    from omni_stage.core.inflow import Merge, Needs
    from omni_stage.core.plan import Plan


class _Phase(Enum):
    JOINING = auto()
    RUNNING = auto()
    FINISHING = auto()
    FINISHED = auto()
    SETTLING = auto()
    FAILED = auto()
    ABORTING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Hooks:
    """The model's pure hooks, bound to one request's params."""

    needs: Needs | None = None
    merge: Merge | None = None


class StageRequest:
    """One request in this stage. `plan` is the stage's static part of the graph narrowed to this request."""

    def __init__(self, plan: Plan, hooks: Hooks) -> None:
        self._plan = plan
        self._phase = _Phase.JOINING
        self._fan_in = FanIn(plan.payload_sources, plan.wait_for, hooks.needs, hooks.merge)
        self._inflows = {source: Inflow(plan.window) for source in plan.stream_sources}
        self._early: list[Command] = []
        self._outflows = {target: Outflow(target, credits) for target, credits in plan.outflows.items()}
        self._paused = False
        self._dropping = False
        self._value: object | None = None
        self._reports: dict[str, StageReport] = {}
        self._first_input: float | None = None
        self._first_output: float | None = None

    @property
    def over(self) -> bool:
        return self._phase is _Phase.OVER

    def handle(self, event: Event) -> list[Command]:
        """What to do about one event."""
        if self._phase in (_Phase.OVER, _Phase.FAILED) and not isinstance(event, AbortAsked | SchedulerDropped):
            return []
        if self._phase is _Phase.SETTLING and not isinstance(event, AbortAsked | Delivered | SendLost):
            return []
        try:
            return self._handle(event)
        except OmniError as error:
            return self._fail(error)
        except BacklogOverflow:
            return self._fail(Internal(f"Stage '{self._plan.stage}' made more chunks than may wait."))

    def _handle(self, event: Event) -> list[Command]:
        match event:
            case Introduced(now):
                return self._introduced(now)
            case PayloadArrived(source, payload, reports, now):
                return self._payload(source, payload, reports, now)
            case ChunkArrived(source, index, chunk, now):
                return self._chunk(source, index, chunk, now)
            case DoneArrived(source, chunks, reports, _):
                return self._done(source, chunks, reports)
            case CreditGranted(target, chunks, now):
                return self._granted(target, chunks, now)
            case Emitted(chunk, to, now):
                return self._emitted(chunk, to, now)
            case InputConsumed(source, count):
                return self._consumed(source, count)
            case Finished(value, now):
                return self._finished(value, now)
            case FailedHere(error):
                return self._fail(error)
            case Delivered():
                return self._delivered()
            case SendLost(error):
                return self._lost(error)
            case AbortAsked():
                return self._abort()
            case SchedulerDropped():
                return self._dropped()

    # Ways in.

    def _introduced(self, now: float) -> list[Command]:
        if self._plan.payload_sources or self._phase is not _Phase.JOINING:
            return []
        self._note_input(now)
        return self._begin(None)

    def _payload(self, source: str, payload: object, reports: Collection[StageReport], now: float) -> list[Command]:
        if self._phase is not _Phase.JOINING:
            return []
        self._note_input(now)
        self._add_reports(reports)
        joined = self._fan_in.add(source, payload)
        return [] if joined is None else self._begin(joined[0])

    def _begin(self, payload: object | None) -> list[Command]:
        self._phase = _Phase.RUNNING
        early, self._early = self._early, []
        return [Begin(payload), *early]

    def _chunk(self, source: str, index: int, chunk: object, now: float) -> list[Command]:
        inflow = self._inflow(source)
        if not inflow.accept(index):
            return []
        self._note_input(now)
        if self._phase in (_Phase.FINISHING, _Phase.FINISHED):
            inflow.drain()
            return self._settle()
        return self._pass(PassChunk(source, chunk))

    def _done(self, source: str, chunks: int, reports: Collection[StageReport]) -> list[Command]:
        inflow = self._inflow(source)
        if inflow.done:
            return []
        inflow.close(chunks)
        self._add_reports(reports)
        if self._phase is _Phase.FINISHED:
            return self._settle_if_drained()
        if self._phase is _Phase.FINISHING:
            return []
        return self._pass(PassDone(source))

    def _pass(self, command: Command) -> list[Command]:
        if self._phase is _Phase.JOINING:
            self._early.append(command)  # at most the window, since nothing is consumed before the request begins
            return []
        return [command] if self._phase is _Phase.RUNNING else []

    def _inflow(self, source: str) -> Inflow:
        try:
            return self._inflows[source]
        except KeyError:
            raise stray(source, tuple(self._inflows)) from None

    def _consumed(self, source: str, count: int) -> list[Command]:
        if self._phase is not _Phase.RUNNING:
            return []
        self._inflow(source).consume(count)
        return self._settle()

    def _settle(self) -> list[Command]:
        """Pays the upstream stages what they are owed, unless this stage's own way out is full."""
        if self._paused:
            return []
        owed = ((source, inflow.settle()) for source, inflow in self._inflows.items())
        return [ReturnCredit(source, chunks) for source, chunks in owed if chunks]

    # Ways out.

    def _emitted(self, chunk: object, to: tuple[str, ...] | None, now: float) -> list[Command]:
        if self._phase is not _Phase.RUNNING:
            return []
        targets = self._outflows.keys() if to is None else [target for target in to if target in self._outflows]
        if to is not None and (strays := set(to) - self._plan.stream_targets):
            raise Internal(f"Stage '{self._plan.stage}' streams to {sorted(strays)}, outside its declared edges.")
        if self._first_output is None:
            self._first_output = now
        leaving: list[Command] = []
        for target in targets:
            leaving += self._outflows[target].offer(chunk)
        if not self._paused and self._blocked():
            self._paused = True
            leaving.append(PauseScheduler())
        return leaving

    def _granted(self, target: str, chunks: int, now: float) -> list[Command]:
        outflow = self._outflows.get(target)
        if outflow is None:
            return []
        commands: list[Command] = [*outflow.grant(chunks)]
        if self._paused and not self._blocked():
            self._paused = False
            if self._phase is _Phase.RUNNING:
                commands.append(ResumeScheduler())
            commands += self._settle()
        if self._phase is _Phase.FINISHING:
            commands += self._leave(now)
        return commands

    def _blocked(self) -> bool:
        return any(outflow.blocked for outflow in self._outflows.values())

    def _finished(self, value: object | None, now: float) -> list[Command]:
        if self._phase is not _Phase.RUNNING:
            return []
        self._phase = _Phase.FINISHING
        self._value = value
        return self._leave(now)

    def _leave(self, now: float) -> list[Command]:
        """The result and the ends of the streams, once every chunk has left."""
        if self._blocked():
            return []
        reports = self._all_reports(now)
        commands: list[Command] = [
            SendDone(target, outflow.sent, reports) for target, outflow in self._outflows.items() if target != CALLER
        ]
        if self._plan.terminal:
            commands.append(SendCompleted(self._value, reports))
        else:
            commands += [SendPayload(target, payload, reports) for target, payload in self._routed().items()]
        self._phase = _Phase.FINISHED
        self._value = None
        for inflow in self._inflows.values():
            inflow.drain()
        return [*commands, *self._settle(), *self._settle_if_drained()]

    def _routed(self) -> Mapping[str, object]:
        targets = self._plan.route(self._value)
        return {target: self._plan.project(target, self._value) for target in targets}

    def _settle_if_drained(self) -> list[Command]:
        if not all(inflow.done for inflow in self._inflows.values()):
            return []
        self._phase = _Phase.SETTLING
        return [AwaitDelivery()]

    def _delivered(self) -> list[Command]:
        if self._phase is not _Phase.SETTLING:
            return []
        self._phase = _Phase.OVER
        return [Forget()]

    # Bad ends.

    def _fail(self, error: OmniError) -> list[Command]:
        if self._phase in (_Phase.FINISHED, _Phase.ABORTING):
            return []
        self._dropping = self._phase is _Phase.RUNNING
        self._phase = _Phase.FAILED
        self._early.clear()
        return [*([AbortScheduler()] if self._dropping else []), SendFailed(error)]

    def _lost(self, error: OmniError) -> list[Command]:
        """As any failure, but also where the stage's own part is done."""
        if self._phase not in (_Phase.FINISHED, _Phase.SETTLING):
            return self._fail(error)
        self._phase = _Phase.FAILED
        return [SendFailed(error)]

    def _abort(self) -> list[Command]:
        if self._phase is _Phase.ABORTING:
            return []
        if self._phase is _Phase.RUNNING or self._dropping:
            asked = self._dropping
            self._phase, self._dropping = _Phase.ABORTING, True
            return [] if asked else [AbortScheduler()]
        self._phase = _Phase.OVER
        self._early.clear()
        return [AckAbort(), Forget()]

    def _dropped(self) -> list[Command]:
        self._dropping = False
        if self._phase is not _Phase.ABORTING:
            return []
        self._phase = _Phase.OVER
        return [AckAbort(), Forget()]

    # Times.

    def _note_input(self, now: float) -> None:
        if self._first_input is None:
            self._first_input = now

    def _add_reports(self, reports: Collection[StageReport]) -> None:
        self._reports.update((report.stage, report) for report in reports)

    def _all_reports(self, now: float) -> tuple[StageReport, ...]:
        own = StageReport(
            stage=self._plan.stage,
            replica=self._plan.replica,
            first_input=now if self._first_input is None else self._first_input,
            first_output=now if self._first_output is None else self._first_output,
            end=now,
        )
        return (*self._reports.values(), own)
