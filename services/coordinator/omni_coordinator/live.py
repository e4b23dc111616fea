"""A live request in this process: the pure request, and the people it talks to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio
from opentelemetry.trace import Span

from omni_common.clock import Clock
from omni_common.errors import OmniError
from omni_common.request import Envelope, Output, RequestKey
from omni_common.telemetry import names, spans
from omni_common.telemetry.tracing import OFF, Attributes, end, exemplar, log_ids
from omni_coordinator.content import Content
from omni_coordinator.core.events import (
    AbortReplica,
    Command,
    Dispatch,
    Event,
    Fail,
    Finish,
    Finished,
    GrantOutput,
    Release,
    SendOutput,
    StageFailed,
)
from omni_coordinator.core.failover import FailedOver, Failover, Rebind, Rebound, Unbound
from omni_coordinator.core.life import Life
from omni_coordinator.core.pipeline_table import Course
from omni_coordinator.link import StageLink
from omni_coordinator.placing import Placed

logger = logging.getLogger(__name__)


class Caller(Protocol):
    """Who asked. Nothing here waits: what cannot be delivered ends the caller's own session."""

    def admitted(self, live: LiveRequest) -> None:
        """Comes first, before anything is sent to a stage."""

    def output(self, index: int, output: Output) -> None: ...

    def finished(self, finished: Finished) -> None: ...

    def failed(self, error: OmniError) -> None: ...


@dataclass(slots=True)
class Attempt:
    """Where one attempt takes place, and what its replicas were told of it."""

    envelope: Envelope
    placed: Placed
    ended_at: float | None = None
    released: anyio.Event = field(default_factory=anyio.Event)

    @property
    def key(self) -> RequestKey:
        return self.envelope.key


class Host(Protocol):
    """Who has the replicas."""

    def place_again(self, live: LiveRequest, without: frozenset[int]) -> Placed:
        """Raises OmniError when no complete set of replicas is left."""

    def superseded(self, live: LiveRequest, number: int) -> None:
        """An attempt has ended before its request; its replicas are being told."""

    def left(self, placed: Placed) -> None:
        """Nothing of an attempt is in its replicas."""

    def over(self, live: LiveRequest) -> None:
        """Nothing of the request is left anywhere."""


class LiveRequest:
    """Feeds events to one request and carries its commands out."""

    def __init__(
        self,
        life: Life,
        first: Attempt,
        content: Content,
        *,
        course: Course,
        caller: Caller,
        host: Host,
        clock: Clock,
    ) -> None:
        self._life = life
        self._content = content
        self._caller = caller
        self._host = host
        self._clock = clock
        self._span = OFF
        self.course = course
        self.attempts = [first]
        self.ended = anyio.Event()
        self.released = anyio.Event()

    @property
    def envelope(self) -> Envelope:
        """Of the latest attempt."""
        return self.attempts[-1].envelope

    @property
    def key(self) -> RequestKey:
        return self.envelope.key

    def is_bound_to(self, replica: int) -> bool:
        return any(replica in attempt.placed.links for attempt in self.attempts)

    def trace_in(self, span: Span) -> None:
        """The span of this request, which ends with it."""
        self._span = span
        if span.is_recording():
            span.set_attributes(
                {
                    spans.PIPELINE: self.envelope.pipeline,
                    spans.REQUEST_ID: self.key.request_id,
                    spans.ATTEMPT: self.key.attempt,
                }
            )
            span.add_event(spans.ADMITTED)

    def feed(self, event: Event | Rebound | Unbound, attempt: int | None = None) -> None:
        """`attempt` is the one that the event is about; None stands for all."""
        for number, command in self._life.handle(event, attempt):
            self._carry_out(number, command)
        if self._life.is_over and not self.released.is_set():
            self.released.set()
            self._content.close()
            self._host.over(self)

    def _carry_out(self, number: int, command: Command | Rebind | FailedOver) -> None:
        match command:
            case SendOutput(index, output):
                self._caller.output(index, output)
            case Finish(finished):
                self._end(names.COMPLETED)
                self._caller.finished(finished)
            case Fail(error):
                self.attempts[-1].ended_at = self._clock()
                names.ABORTS.labels(self.envelope.pipeline, error.reason.lower()).inc()
                self._end(names.outcome_of(error.reason))
                self._caller.failed(error)
            case Rebind(without):
                self._rebind(without)
            case FailedOver(stage, outcome):
                self._note(stage, outcome)
            case _:
                self._about(self.attempts[number], command)

    def _about(self, attempt: Attempt, command: Dispatch | GrantOutput | AbortReplica | Release) -> None:
        links, key = attempt.placed.links, attempt.key
        match command:
            case Dispatch(replica):
                attempt.envelope = replace(attempt.envelope, output_credits=self._life.credit)
                try:
                    self._content.send(links[replica], attempt.envelope)
                except OmniError as error:
                    self.feed(StageFailed(replica, error), key.attempt)
            case GrantOutput(replica, text, audio):
                links[replica].grant(key, text, audio)
            case AbortReplica(replica):
                self._abort(attempt, links[replica])
            case Release(unanswered):
                self._settle(attempt, unanswered)

    def _abort(self, attempt: Attempt, link: StageLink) -> None:
        if attempt.ended_at is None:
            attempt.ended_at = self._clock()
            self._host.superseded(self, attempt.key.attempt)
        link.abort(attempt.key)

    # Another attempt.

    def _rebind(self, without: frozenset[int]) -> None:
        if not self._content.is_here:
            self.feed(Unbound(Failover.NOT_KEPT))
            return
        try:
            placed = self._host.place_again(self, without)
        except OmniError:
            self.feed(Unbound(Failover.NO_REPLICA))
            return
        key = replace(self.key, attempt=self.key.attempt + 1)
        envelope = replace(self.envelope, key=key, bindings=placed.bindings)
        self.attempts.append(Attempt(envelope, placed))
        self.feed(Rebound(placed.bound))

    def _note(self, stage: str, outcome: Failover) -> None:
        names.FAILOVERS.labels(self.envelope.pipeline, stage, outcome).inc()
        about: Attributes = {spans.STAGE: stage, spans.ATTEMPT: self.key.attempt, spans.OUTCOME: outcome.value}
        self._span.add_event(spans.FAILOVER, about)
        self._span.set_attribute(spans.ATTEMPT, self.key.attempt)
        facts = {"model": self.envelope.pipeline, "stage": stage, "attempt": self.key.attempt, "outcome": outcome.value}
        logger.warning("replica lost under a request", extra={**self._ids(), **facts})

    # The end.

    def _end(self, outcome: str) -> None:
        self.ended.set()
        seconds = self._clock() - self.envelope.origin
        names.REQUESTS.labels(self.envelope.pipeline, outcome).inc()
        names.REQUEST_SECONDS.labels(self.envelope.pipeline, outcome).observe(seconds, exemplar(self._span))
        logger.info(
            "request ended",
            extra={
                **self._ids(),
                "model": self.envelope.pipeline,
                "attempt": self.key.attempt,
                "outcome": outcome,
                "dur_ms": round(seconds * 1000, 1),
            },
        )
        end(self._span, outcome)

    def _ids(self) -> dict[str, str]:
        return {"request_id": self.key.request_id, **log_ids(self.envelope.trace, self._span)}

    def _settle(self, attempt: Attempt, unanswered: frozenset[int]) -> None:
        if attempt.ended_at is not None:
            names.ABORT_SECONDS.labels(self.envelope.pipeline).observe(self._clock() - attempt.ended_at)
        for number in unanswered:
            stage = attempt.placed.links[number].replica.stage
            names.ABORT_TIMEOUTS.labels(stage).inc()
            logger.warning("abort unanswered", extra={**self._ids(), "stage": stage})
        attempt.released.set()
        self._host.left(attempt.placed)
