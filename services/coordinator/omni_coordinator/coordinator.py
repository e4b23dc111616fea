"""The coordinator: drives each request's core, owns its timers, and knows who is attached.

Every method is synchronous and runs on the event loop, so that no two of them interleave; what takes time is the
sessions' writing, and one task per live request that waits for its deadline.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import anyio
import anyio.abc

from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.errors import DeadlineExceeded, OmniError, Overloaded
from omni_common.pipeline import PipelineConfig
from omni_common.request import Envelope, GenerationRequest, RequestKey, TraceContext
from omni_common.telemetry import names, spans
from omni_common.telemetry.tracing import begin, context_of, end
from omni_coordinator.content import Content, media_size
from omni_coordinator.core.admission import Admission, MediaBudget
from omni_coordinator.core.bindings import Phase, Replica
from omni_coordinator.core.events import AbortTimedOut, DeadlinePassed, Event, ReplicaLost, Started, Stopping
from omni_coordinator.core.failover import Failover
from omni_coordinator.core.life import Life
from omni_coordinator.core.pipeline_table import Course, PipelineTable
from omni_coordinator.core.roster import PipelineState, Roster
from omni_coordinator.link import StageLink
from omni_coordinator.live import Attempt, Caller, LiveRequest
from omni_coordinator.placing import Placed, place
from omni_coordinator.submission import Limits, Submission

logger = logging.getLogger(__name__)

_SEED_BITS = 63  # what every random generator takes


class Watcher(Protocol):
    """A session of a gateway."""

    def pipeline_changed(self, pipeline: str) -> None:
        """The state of this pipeline is another."""

    def finish(self) -> None:
        """Ends the session once what it still holds is sent."""


class Coordinator:
    """Admits, binds, dispatches and ends requests."""

    def __init__(
        self,
        pipelines: Mapping[str, PipelineConfig],
        limits: Limits,
        tasks: anyio.abc.TaskGroup,
        *,
        clock: Clock = monotonic,
    ) -> None:
        self._table = PipelineTable(pipelines.values())
        self._roster = Roster(pipelines)
        self._limits = limits
        self._tasks = tasks
        self._clock = clock
        self._admission = Admission(limits.max_live_requests)
        self._live: dict[str, LiveRequest] = {}
        self._links: dict[int, StageLink] = {}
        self._watchers: set[Watcher] = set()
        self._numbers = itertools.count(1)
        self.media = MediaBudget(limits.max_media)
        _count_from_nothing_on(pipelines)
        self.id = f"coord_{secrets.token_hex(8)}"

    def now(self) -> float:
        return self._clock()

    @property
    def live(self) -> int:
        """Requests whose place is not free yet."""
        return self._admission.live

    @property
    def pipelines(self) -> Mapping[str, PipelineConfig]:
        return self._table.pipelines

    def state(self, pipeline: str) -> PipelineState:
        return self._roster.state(pipeline)

    @property
    def open(self) -> bool:
        return self._admission.open

    # Callers

    def submit(self, submission: Submission, caller: Caller) -> LiveRequest:
        """Admits the request and sends it to its entry stage. Raises OmniError when it is refused; after that its
        end comes to the caller."""
        span = begin(spans.COORDINATOR, submission.trace, {spans.COORDINATOR_ID: self.id})
        try:
            live = self._admit(submission, caller, context_of(span, submission.trace))
        except OmniError as refusal:
            end(span, names.outcome_of(refusal.reason))
            known = submission.request.model if submission.request.model in self.pipelines else "unknown"
            names.ADMISSION_REFUSALS.labels(known, refusal.reason.lower()).inc()
            raise
        live.trace_in(span)
        self._tasks.start_soon(self._watch, live)
        caller.admitted(live)
        live.feed(Started(submission.output_credits))
        return live

    def _admit(self, submission: Submission, caller: Caller, trace: TraceContext) -> LiveRequest:
        course = self._table.plan(submission.request)
        if submission.remaining is not None and submission.remaining <= 0:
            raise DeadlineExceeded
        placed = place(course, self._roster, self._links)
        try:
            self._take(course.request)
        except OmniError:
            self.left(placed)
            raise
        return self._enter(submission, course, placed, caller, trace)

    def _take(self, request: GenerationRequest) -> None:
        self._admission.take()
        if not self.media.try_take(media_size(request)):
            self._admission.give_back()
            raise Overloaded("The coordinator holds as many bytes of media as it may.")

    def _enter(
        self, submission: Submission, course: Course, placed: Placed, caller: Caller, trace: TraceContext
    ) -> LiveRequest:
        now = self._clock()
        remaining = self._limits.default_deadline if submission.remaining is None else submission.remaining
        envelope = Envelope(
            key=RequestKey(f"req_{secrets.token_hex(16)}"),
            pipeline=course.pipeline.name,
            coordinator=self.id,
            deadline=now + remaining,
            origin=now,
            bindings=placed.bindings,
            terminals=course.terminals,
            params=replace(course.request.params, fallback_seed=secrets.randbits(_SEED_BITS)),
            output_credits=submission.output_credits,
            trace=trace,
        )
        attempts, credit = self._limits.max_attempts, submission.output_credits
        live = LiveRequest(
            Life(course.pipeline.entry, placed.bound, output_credits=credit, max_attempts=attempts),
            Attempt(envelope, placed),
            Content(course.request, self.media, keep=attempts > 1),
            course=course,
            caller=caller,
            host=self,
            clock=self._clock,
        )
        self._live[live.key.request_id] = live
        names.LIVE_REQUESTS.labels(live.envelope.pipeline).inc()
        return live

    async def _watch(self, live: LiveRequest) -> None:
        """Sees to it that the request ends by its deadline and is released soon after its end."""
        with anyio.move_on_after(live.envelope.deadline - self._clock()):
            await live.ended.wait()
        live.feed(DeadlinePassed())
        with anyio.move_on_after(self._limits.abort_timeout):
            await live.released.wait()
        live.feed(AbortTimedOut())

    async def _watch_attempt(self, live: LiveRequest, number: int) -> None:
        """Sees to it that an attempt is released soon after another has taken its place."""
        with anyio.move_on_after(self._limits.abort_timeout):
            await live.attempts[number].released.wait()
        live.feed(AbortTimedOut(), number)

    # Of live requests

    def place_again(self, live: LiveRequest, without: frozenset[int]) -> Placed:
        return place(live.course, self._roster, self._links, without)

    def superseded(self, live: LiveRequest, number: int) -> None:
        self._tasks.start_soon(self._watch_attempt, live, number)

    def left(self, placed: Placed) -> None:
        placed.leave(self._dismiss)

    def over(self, live: LiveRequest) -> None:
        del self._live[live.key.request_id]
        self._admission.give_back()
        names.LIVE_REQUESTS.labels(live.envelope.pipeline).dec()

    # Stages

    def next_number(self) -> int:
        return next(self._numbers)

    def attach(self, link: StageLink) -> None:
        """The replica takes requests from the moment it says that it is ready."""
        former = self._roster.add(link.replica)
        if former is not None:
            logger.warning("replica attached again", extra={"stage": former.stage, "replica": former.name})
            old = self._links[former.number]
            self.detach(old)
            old.close()
        self._links[link.replica.number] = link
        self.changed(link.replica)

    def detach(self, link: StageLink) -> None:
        """The replica is gone: its requests go on elsewhere, or fail now. Idempotent."""
        if self._links.pop(link.replica.number, None) is None:
            return
        self._roster.remove(link.replica)
        lost = ReplicaLost(link.replica.number)
        for live in [live for live in self._live.values() if live.is_bound_to(link.replica.number)]:
            live.feed(lost)
        self.changed(link.replica)

    def changed(self, replica: Replica) -> None:
        """The replica's phase or progress is another."""
        ready = sum(r.phase is Phase.READY for r in self._roster.replicas(replica.pipeline)[replica.stage])
        names.READY_REPLICAS.labels(replica.pipeline, replica.stage).set(ready)
        for watcher in tuple(self._watchers):
            watcher.pipeline_changed(replica.pipeline)
        if (link := self._links.get(replica.number)) is not None:
            self._dismiss(link)

    def _dismiss(self, link: StageLink) -> None:
        """A replica that drains stays until no request is bound to it: one that is idle may be needed yet, and when it
        leaves, what is bound to it has to begin again."""
        replica = link.replica
        if self._links.get(replica.number) is link and replica.phase is Phase.DRAINING and not replica.outstanding:
            link.dismiss()

    def tell(self, key: RequestKey, event: Event) -> None:
        """An event about a request from one of its replicas. One about an unknown request or attempt is late."""
        live = self._live.get(key.request_id)
        if live is not None:
            live.feed(event, key.attempt)

    # Watchers

    def watch(self, watcher: Watcher) -> None:
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    # The end

    async def drain(self, deadline: Deadline) -> None:
        """Refuses new requests, lets live ones end, and fails those that would not by the deadline, in time for their
        replicas to answer."""
        self._admission.close()
        for pipeline, watcher in itertools.product(self.pipelines, tuple(self._watchers)):
            watcher.pipeline_changed(pipeline)
        with anyio.move_on_after(deadline.remaining - self._limits.abort_timeout):
            await self.wait_idle()
        for live in tuple(self._live.values()):
            live.feed(Stopping())
        with anyio.move_on_after(deadline.remaining):
            await self.wait_idle()

    def close(self) -> None:
        """Ends all sessions; gateways get what still waits for them."""
        for watcher in tuple(self._watchers):
            watcher.finish()
        for link in tuple(self._links.values()):
            link.close()

    async def wait_idle(self) -> None:
        while self._live:
            await next(iter(self._live.values())).released.wait()


def _count_from_nothing_on(pipelines: Mapping[str, PipelineConfig]) -> None:
    """Prometheus sees no increase in what begins with one."""
    for name, pipeline in pipelines.items():
        for stage, outcome in itertools.product(pipeline.by_name, Failover):
            names.FAILOVERS.labels(name, stage, outcome)
