"""The IO shell of a stage: it drives each request's pure core and carries out what the core decides.

Everything here runs on the event loop and returns at once; the scheduler works in threads of its own and answers
through `on_outgoing`. Who sends what to whom:

    coordinators ──dispatch, abort, credit──▶ Stage ──output, result, failure──▶ coordinators   (coordinators.py)
    upstream stages ──payload, chunk, done──▶ Stage ──credit, release──▶ upstream stages        (incoming.py)
    Stage ──payload, chunk, done──▶ downstream stages ──credit, release──▶ Stage                (outgoing.py)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from omni_common.clock import Clock
from omni_common.deadline import Deadline
from omni_common.errors import DeadlineExceeded, Internal, OmniError, Overloaded, Reason
from omni_common.request import Envelope, GenerationRequest, Output, RequestKey, StageReport, TerminalResult
from omni_common.telemetry import names
from omni_common.telemetry.tracing import OFF, log_ids
from omni_stage.core import events as ev
from omni_stage.core.plan import ENTRY_SOURCE, Planner
from omni_stage.core.request import Hooks, StageRequest
from omni_stage.core.tombstones import Tombstones
from omni_stage.identity import Identity
from omni_stage.scheduler import contract
from omni_stage.spans import STAGE_SPANS

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """The coordinator that owns a request, as the stage sees it."""

    def output(self, key: RequestKey, index: int, output: Output) -> None: ...
    def completed(self, key: RequestKey, result: TerminalResult) -> None: ...
    def failed(self, key: RequestKey, error: OmniError) -> None: ...
    def aborted(self, key: RequestKey) -> None: ...


class Keeper(Protocol):
    """Who keeps something for requests."""

    def drop(self, key: RequestKey) -> None:
        """The request is over."""


class Upstream(Protocol):
    """The way on which an upstream replica delivers."""

    def credit(self, key: RequestKey, chunks: int) -> None: ...


class Downstream(Protocol):
    """The replicas of the next stages. Raises OmniError when one cannot be reached or a value does not fit; what is
    sent may still wait or be under way then, see `Stage.delivered` and `Stage.lost`."""

    def payload(self, envelope: Envelope, target: str, value: object, reports: Iterable[StageReport]) -> None: ...
    def chunk(self, envelope: Envelope, target: str, index: int, value: object) -> None: ...
    def done(self, envelope: Envelope, target: str, chunks: int, reports: Iterable[StageReport]) -> None: ...
    def busy(self, key: RequestKey) -> bool: ...
    def forget(self, key: RequestKey) -> None: ...
    def abandon(self, key: RequestKey) -> None: ...


@dataclass(slots=True)
class _Live:
    """One request and where its answers go."""

    envelope: Envelope
    request: StageRequest
    scheduler: contract.Scheduler
    upstreams: dict[str, Upstream] = field(default_factory=dict)

    @property
    def key(self) -> RequestKey:
        return self.envelope.key


@dataclass(frozen=True, slots=True)
class _Program:
    planner: Planner
    hooks: Hooks
    scheduler: contract.Scheduler


class Stage:
    """The live requests of one stage replica."""

    def __init__(
        self,
        identity: Identity,
        *,
        downstream: Downstream,
        clock: Clock,
    ) -> None:
        self.identity = identity
        self._program: _Program | None = None
        self._downstream = downstream
        self._clock = clock
        self._live: dict[RequestKey, _Live] = {}
        self._owners: dict[str, Owner] = {}
        self._keepers: set[Keeper] = set()
        self._tombstones = Tombstones()
        self._on_idle: Callable[[], None] | None = None
        names.STAGE_LIVE_REQUESTS.labels(identity.stage).set(0)

    def open(self, planner: Planner, hooks: Hooks, scheduler: contract.Scheduler) -> None:
        """The model is loaded: from now on requests are admitted."""
        self._program = _Program(planner, hooks, scheduler)

    # What coordinators say.

    def attach(self, coordinator: str, owner: Owner) -> None:
        self._owners[coordinator] = owner

    def detach(self, coordinator: str, owner: Owner) -> None:
        """The coordinator is gone, and with it whoever asked: its requests end here."""
        if self._owners.get(coordinator) is not owner:
            return
        del self._owners[coordinator]
        for live in [live for live in self._live.values() if live.envelope.coordinator == coordinator]:
            self._apply(live, ev.AbortAsked())

    def dispatch(self, envelope: Envelope, request: GenerationRequest) -> None:
        """The first step of a request, at the entry stage."""
        if live := self.introduce(envelope):
            self._apply(live, ev.PayloadArrived(ENTRY_SOURCE, request, (), self._age(live)))

    def abort(self, key: RequestKey, owner: Owner) -> None:
        if live := self._live.get(key):
            self._apply(live, ev.AbortAsked())
            return
        self._bury(key)
        owner.aborted(key)

    def grant_output(self, key: RequestKey, outputs: int) -> None:
        self.grant(key, ev.CALLER, outputs)

    # What other stages say.

    def connect(self, keeper: Keeper) -> None:
        """It is told of requests that are over, from now on."""
        self._keepers.add(keeper)

    def disconnect(self, keeper: Keeper) -> None:
        self._keepers.discard(keeper)

    def introduce(self, envelope: Envelope) -> _Live | None:
        """Makes the request known here. None when it is over already or is refused."""
        key = envelope.key
        if live := self._live.get(key):
            return live
        if key in self._tombstones:
            return None
        live = self._admit(envelope)
        if live is not None:
            self._live[key] = live
            names.STAGE_LIVE_REQUESTS.labels(self.identity.stage).set(len(self._live))
            self._apply(live, ev.Introduced(self._age(live)))
        return live

    def payload(
        self, key: RequestKey, source: str, value: object, reports: Sequence[StageReport], upstream: Upstream
    ) -> None:
        if live := self._known(key, source, upstream):
            self._apply(live, ev.PayloadArrived(source, value, reports, self._age(live)))

    def chunk(self, key: RequestKey, source: str, index: int, value: object, upstream: Upstream) -> None:
        if live := self._known(key, source, upstream):
            self._apply(live, ev.ChunkArrived(source, index, value, self._age(live)))

    def done(
        self, key: RequestKey, source: str, chunks: int, reports: Sequence[StageReport], upstream: Upstream
    ) -> None:
        if live := self._known(key, source, upstream):
            self._apply(live, ev.DoneArrived(source, chunks, reports, self._age(live)))

    def grant(self, key: RequestKey, target: str, chunks: int) -> None:
        if live := self._live.get(key):
            self._apply(live, ev.CreditGranted(target, chunks, self._age(live)))

    def delivered(self, key: RequestKey) -> None:
        """Something that was sent for the request is no longer under way, and perhaps nothing is."""
        live = self._live.get(key)
        if live is not None and not self._downstream.busy(key):
            self._apply(live, ev.Delivered())

    def lost(self, key: RequestKey, error: OmniError) -> None:
        """Something that was sent for the request cannot arrive."""
        if live := self._live.get(key):
            self._apply(live, ev.SendLost(error))

    def fail(self, key: RequestKey, error: OmniError) -> None:
        """One request cannot go on here."""
        if live := self._live.get(key):
            self._apply(live, ev.FailedHere(error))

    def fail_lane(self, lane: str, error: OmniError) -> None:
        """As `fail`, for what names the request's lane."""
        for key in [key for key in self._live if key.lane == lane]:
            self.fail(key, error)

    def note_late_event(self) -> None:
        """Something came for a request that is over, or never was."""
        names.LATE_EVENTS.labels(self.identity.stage).inc()

    def knows(self, key: RequestKey) -> bool:
        return key in self._live

    def deadline_of(self, key: RequestKey) -> Deadline:
        """Of a request that is known here."""
        return Deadline(self._live[key].envelope.deadline, self._clock)

    def is_over(self, key: RequestKey) -> bool:
        return key in self._tombstones

    def is_lane_over(self, lane: str) -> bool:
        """As `is_over`, for what names the request's lane."""
        return self._tombstones.has_lane(lane)

    # What the scheduler says, on the event loop.

    def on_outgoing(self, batch: Sequence[contract.Outgoing]) -> None:
        for item in batch:
            if live := self._live.get(item.key):
                self._apply(live, self._event_of(item, live))

    def _event_of(self, item: contract.Outgoing, live: _Live) -> ev.Event:
        match item:
            case contract.Emit(_, chunk, to):
                STAGE_SPANS.output(self.identity.stage, item.key)
                return ev.Emitted(chunk, to, self._age(live))
            case contract.Consumed(_, source, count):
                return ev.InputConsumed(source, count)
            case contract.Result(_, value):
                STAGE_SPANS.output(self.identity.stage, item.key, last=True)
                return ev.Finished(value, self._age(live))
            case contract.Failed(_, error):
                return ev.FailedHere(error)
            case contract.Dropped():
                return ev.SchedulerDropped()

    # Time.

    def sweep(self) -> None:
        """Ends what is past its deadline. The owning coordinator does this first; here it is a backstop."""
        now = self._clock()
        for live in [live for live in self._live.values() if live.envelope.deadline + _DEADLINE_GRACE < now]:
            self._apply(live, ev.FailedHere(DeadlineExceeded()))
            self._apply(live, ev.AbortAsked())

    @property
    def live_requests(self) -> int:
        return len(self._live)

    def notify_when_idle(self, callback: Callable[[], None]) -> None:
        """Calls back once, as soon as nothing is alive here."""
        self._on_idle = callback
        self._tell_if_idle()

    # Inside.

    def _admit(self, envelope: Envelope) -> _Live | None:
        owner, program = self._owners.get(envelope.coordinator), self._program
        if owner is None or program is None:
            about = {"coordinator": envelope.coordinator, **self._ids(envelope)}
            logger.info("a request came too early or too late", extra=about)
            return None
        STAGE_SPANS.begin(self.identity, envelope)
        try:
            if len(self._live) >= self.identity.capacity:
                raise Overloaded(
                    f"Stage '{self.identity.stage}' holds {len(self._live)} requests already.",
                    stage=self.identity.stage,
                )
            if envelope.deadline <= self._clock():
                raise DeadlineExceeded
            return _Live(envelope, StageRequest(program.planner.plan(envelope), program.hooks), program.scheduler)
        except OmniError as error:
            self._bury(envelope.key)
            self._note_failed(envelope, error)
            STAGE_SPANS.end(self.identity.stage, envelope.key)
            owner.failed(envelope.key, error)
            return None

    def _bury(self, key: RequestKey) -> None:
        self._tombstones.bury(key, self._clock())
        for keeper in tuple(self._keepers):
            keeper.drop(key)

    def _known(self, key: RequestKey, source: str, upstream: Upstream) -> _Live | None:
        if live := self._live.get(key):
            live.upstreams[source] = upstream
        return live

    def _age(self, live: _Live) -> float:
        return self._clock() - live.envelope.origin

    def _apply(self, live: _Live, event: ev.Event) -> None:
        for command in live.request.handle(event):
            try:
                self._carry_out(live, command)
            except OmniError as error:
                self._tell_failed(live, error)

    def _carry_out(self, live: _Live, command: ev.Command) -> None:
        key, envelope = live.key, live.envelope
        match command:
            case ev.Begin(payload):
                STAGE_SPANS.queued(self.identity.stage, key)
                live.scheduler.submit(contract.NewRequest(key, envelope.params, payload))
            case ev.PassChunk(source, chunk):
                live.scheduler.submit(contract.Chunk(key, source, chunk))
            case ev.PassDone(source):
                live.scheduler.submit(contract.Done(key, source))
            case ev.PauseScheduler():
                names.PAUSES.labels(self.identity.stage).inc()
                live.scheduler.submit(contract.Pause(key))
            case ev.ResumeScheduler():
                live.scheduler.submit(contract.Resume(key))
            case ev.AbortScheduler():
                live.scheduler.abort(key)
            case ev.SendPayload(target, value, reports):
                self._downstream.payload(envelope, target, value, reports)
            case ev.SendChunk(ev.CALLER, index, chunk):
                self._send_output(live, index, chunk)
            case ev.SendChunk(target, index, chunk):
                self._downstream.chunk(envelope, target, index, chunk)
            case ev.SendDone(target, chunks, reports):
                self._downstream.done(envelope, target, chunks, reports)
            case ev.SendCompleted(value, reports):
                self._send_completed(live, value, reports)
            case ev.SendFailed(error):
                self._tell_failed(live, error)
            case ev.ReturnCredit(source, chunks):
                live.upstreams[source].credit(key, chunks)
            case ev.AwaitDelivery():
                if not self._downstream.busy(key):
                    self._apply(live, ev.Delivered())
            case ev.AckAbort():
                STAGE_SPANS.failed(self.identity.stage, key, Reason.CANCELLED)
                self._downstream.abandon(key)
                if owner := self._owners.get(envelope.coordinator):
                    owner.aborted(key)
            case ev.Forget():
                self._forget(live)
            case _:
                assert_never(command)

    def _send_output(self, live: _Live, index: int, chunk: object) -> None:
        if not isinstance(chunk, Output):
            raise Internal(f"Stage '{self.identity.stage}' made a chunk that is no output.")
        if owner := self._owners.get(live.envelope.coordinator):
            owner.output(live.key, index, chunk)

    def _send_completed(self, live: _Live, value: object, reports: tuple[StageReport, ...]) -> None:
        if not isinstance(value, TerminalResult):
            raise Internal(f"Stage '{self.identity.stage}' ended with a value that is no terminal result.")
        if owner := self._owners.get(live.envelope.coordinator):
            owner.completed(live.key, TerminalResult(value.finish_reason, value.usage, reports))

    def _tell_failed(self, live: _Live, error: OmniError) -> None:
        names.STAGE_FAILURES.labels(self.identity.stage, error.reason.lower()).inc()
        self._note_failed(live.envelope, error)
        if owner := self._owners.get(live.envelope.coordinator):
            owner.failed(live.key, error)
        else:
            self._apply(live, ev.AbortAsked())

    def _forget(self, live: _Live) -> None:
        self._live.pop(live.key, None)
        names.STAGE_LIVE_REQUESTS.labels(self.identity.stage).set(len(self._live))
        self._bury(live.key)
        self._downstream.forget(live.key)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("request over here", extra=self._ids(live.envelope))
        STAGE_SPANS.end(self.identity.stage, live.key)
        self._tell_if_idle()

    def _note_failed(self, envelope: Envelope, error: OmniError) -> None:
        STAGE_SPANS.failed(self.identity.stage, envelope.key, error.reason)
        logger.info("request failed here", extra={**self._ids(envelope), "reason": error.reason.lower()})

    def _ids(self, envelope: Envelope) -> dict[str, str | int]:
        """By which a line in the log is found from the request and its trace."""
        key, stage = envelope.key, self.identity.stage
        ids = log_ids(envelope.trace, STAGE_SPANS.span_of(stage, key) or OFF)
        return {"request_id": key.request_id, "attempt": key.attempt, "stage": stage, **ids}

    def _tell_if_idle(self) -> None:
        if self._on_idle is not None and not self._live:
            callback, self._on_idle = self._on_idle, None
            callback()


# The coordinator's own deadline comes first, and its abort needs a moment to arrive.
_DEADLINE_GRACE = 5.0
