"""The coordinator: drives each request's core, owns its timers, and knows who is attached.

Every method is synchronous and runs on the event loop, so that no two of them interleave; what takes time is the
sessions' writing, and one task per live request that waits for its deadline.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import anyio.abc

from omni_common.clock import Clock, monotonic
from omni_common.deadline import Deadline
from omni_common.errors import DeadlineExceeded, OmniError, Overloaded
from omni_common.pipeline import PipelineConfig
from omni_common.request import (
    Binding,
    Envelope,
    GenerationRequest,
    Media,
    RequestKey,
    TraceContext,
)
from omni_common.telemetry import names, spans
from omni_common.telemetry.tracing import begin, context_of, end
from omni_coordinator.core.admission import Admission, MediaBudget
from omni_coordinator.core.bindings import Phase, Replica, bind
from omni_coordinator.core.pipeline_table import Course, PipelineTable
from omni_coordinator.core.request import (
    AbortTimedOut,
    Bound,
    DeadlinePassed,
    Event,
    ReplicaLost,
    Request,
    Started,
    Stopping,
)
from omni_coordinator.core.roster import PipelineState, Roster
from omni_coordinator.live import Caller, LiveRequest, StageLink

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """A session of a gateway."""

    def pipeline_changed(self, pipeline: str) -> None:
        """The state of this pipeline is another."""

    def finish(self) -> None:
        """Ends the session once what it still holds is sent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one coordinator; times in seconds, media in bytes."""

    max_live_requests: int = 256
    max_media: int = 512 << 20
    default_deadline: float = 600.0
    abort_timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Submission:
    """One caller's request; `remaining` is the time that it has, None for the default."""

    request: GenerationRequest
    output_credits: int
    remaining: float | None = None
    trace: TraceContext = field(default_factory=TraceContext)


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
            live, request = self._admit(submission, caller, context_of(span, submission.trace))
        except OmniError as refusal:
            end(span, names.outcome_of(refusal.reason))
            known = submission.request.model if submission.request.model in self.pipelines else "unknown"
            names.ADMISSION_REFUSALS.labels(known, refusal.reason.lower()).inc()
            raise
        live.trace_in(span)
        size = _media_size(submission.request)
        self._tasks.start_soon(self._watch, live)
        caller.admitted(live)
        live.begin(Started(), request, lambda: self.media.give_back(size))
        return live

    def _admit(
        self, submission: Submission, caller: Caller, trace: TraceContext
    ) -> tuple[LiveRequest, GenerationRequest]:
        course = self._table.plan(submission.request)
        if submission.remaining is not None and submission.remaining <= 0:
            raise DeadlineExceeded
        replicas = bind(course.visits, self._roster.replicas(course.pipeline.name))
        self._admission.take()
        if not self.media.try_take(_media_size(submission.request)):
            self._admission.give_back()
            raise Overloaded("The coordinator holds as many bytes of media as it may.")
        live = self._enter(submission, course, replicas, caller, trace)
        return live, course.request

    def _enter(
        self,
        submission: Submission,
        course: Course,
        replicas: Mapping[str, Replica],
        caller: Caller,
        trace: TraceContext,
    ) -> LiveRequest:
        now = self._clock()
        remaining = self._limits.default_deadline if submission.remaining is None else submission.remaining
        envelope = Envelope(
            key=RequestKey(f"req_{secrets.token_hex(16)}"),
            pipeline=course.pipeline.name,
            coordinator=self.id,
            deadline=now + remaining,
            origin=now,
            bindings={stage: Binding(r.name, r.address, r.pod, r.relay) for stage, r in replicas.items()},
            terminals=course.terminals,
            params=course.request.params,
            output_credits=submission.output_credits,
            trace=trace,
        )
        bound = tuple(
            Bound(stage, r.number, course.pipeline.stage(stage).terminal if stage in course.terminals else None)
            for stage, r in replicas.items()
        )
        live = LiveRequest(
            Request(course.pipeline.entry, bound, output_credits=submission.output_credits),
            envelope=envelope,
            links={r.number: self._links[r.number] for r in replicas.values()},
            caller=caller,
            release=self._release,
            clock=self._clock,
        )
        for replica in replicas.values():
            replica.outstanding += 1
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

    def _release(self, live: LiveRequest) -> None:
        del self._live[live.key.request_id]
        for link in live.links.values():
            link.replica.outstanding -= 1
            self._dismiss(link.replica)
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
        """The replica is gone: its requests fail now. Idempotent."""
        if self._links.pop(link.replica.number, None) is None:
            return
        self._roster.remove(link.replica)
        lost = ReplicaLost(link.replica.number)
        for live in [live for live in self._live.values() if link.replica.number in live.links]:
            live.feed(lost)
        self.changed(link.replica)

    def changed(self, replica: Replica) -> None:
        """The replica's phase or progress is another."""
        ready = sum(r.phase is Phase.READY for r in self._roster.replicas(replica.pipeline)[replica.stage])
        names.READY_REPLICAS.labels(replica.pipeline, replica.stage).set(ready)
        for watcher in tuple(self._watchers):
            watcher.pipeline_changed(replica.pipeline)
        self._dismiss(replica)

    def _dismiss(self, replica: Replica) -> None:
        """A replica that drains stays until no request is bound to it: one that is idle may be needed yet, and when it
        leaves, what is bound to it fails."""
        link = self._links.get(replica.number)
        if link is not None and replica.phase is Phase.DRAINING and not replica.outstanding:
            link.dismiss()

    def tell(self, key: RequestKey, event: Event) -> None:
        """An event about a request from one of its replicas. One about an unknown request or attempt is late."""
        live = self._live.get(key.request_id)
        if live is not None and live.key == key:
            live.feed(event)

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


def _media_size(request: GenerationRequest) -> int:
    return sum(len(part.data) for message in request.messages for part in message.parts if isinstance(part, Media))
