"""A live request in this process: the pure request, and the people it talks to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import anyio
from opentelemetry.trace import Span

from omni_common.clock import Clock
from omni_common.errors import OmniError
from omni_common.request import Envelope, GenerationRequest, Output, RequestKey
from omni_common.telemetry import names, spans
from omni_common.telemetry.tracing import OFF, end, exemplar, log_ids
from omni_coordinator.core.bindings import Replica
from omni_coordinator.core.request import (
    AbortReplica,
    Command,
    Dispatch,
    Event,
    Fail,
    Finish,
    Finished,
    GrantOutput,
    Release,
    Request,
    SendOutput,
    StageFailed,
)

logger = logging.getLogger(__name__)


class Caller(Protocol):
    """Who asked. Nothing here waits: what cannot be delivered ends the caller's own session."""

    def admitted(self, live: LiveRequest) -> None:
        """Comes first, before anything is sent to a stage."""

    def output(self, index: int, output: Output) -> None: ...

    def finished(self, finished: Finished) -> None: ...

    def failed(self, error: OmniError) -> None: ...


class StageLink(Protocol):
    """The way to one attached replica. Nothing here waits: a replica that takes nothing is detached."""

    replica: Replica

    def dispatch(self, envelope: Envelope, request: GenerationRequest, media_sent: Callable[[], None]) -> None:
        """Begins the request there; `media_sent` is called once, when its media are no longer held here.

        Raises OmniError when the request can never be sent; `media_sent` is called then as well."""

    def grant(self, key: RequestKey, text: int, audio: int) -> None: ...

    def abort(self, key: RequestKey) -> None: ...

    def dismiss(self) -> None:
        """Tells the replica, which is draining, that no request here needs it any more."""

    def close(self) -> None:
        """Ends the replica's session."""


class LiveRequest:
    """Feeds events to one request and carries its commands out."""

    def __init__(
        self,
        core: Request,
        *,
        envelope: Envelope,
        links: Mapping[int, StageLink],
        caller: Caller,
        release: Callable[[LiveRequest], None],
        clock: Clock,
    ) -> None:
        self._core = core
        self._links = links
        self._caller = caller
        self._release = release
        self._clock = clock
        self._failed_at: float | None = None
        self._span = OFF
        self.envelope = envelope
        self.ended = anyio.Event()
        self.released = anyio.Event()

    @property
    def key(self) -> RequestKey:
        return self.envelope.key

    @property
    def links(self) -> Mapping[int, StageLink]:
        return self._links

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

    def begin(self, event: Event, request: GenerationRequest, media_sent: Callable[[], None]) -> None:
        """The first event, whose dispatch needs what nothing later does: the request itself is not kept."""
        for command in self._core.handle(event):
            if isinstance(command, Dispatch):
                self._dispatch(command, request, media_sent)

    def feed(self, event: Event) -> None:
        for command in self._core.handle(event):
            self._carry_out(command)

    def _dispatch(self, command: Dispatch, request: GenerationRequest, media_sent: Callable[[], None]) -> None:
        try:
            self._links[command.replica].dispatch(self.envelope, request, media_sent)
        except OmniError as error:
            self.feed(StageFailed(command.replica, error))

    def _carry_out(self, command: Command) -> None:
        match command:
            case SendOutput(index, output):
                self._caller.output(index, output)
            case GrantOutput(replica, text, audio):
                self._links[replica].grant(self.key, text, audio)
            case Finish(finished):
                self._end(names.COMPLETED)
                self._caller.finished(finished)
            case Fail(error):
                self._failed_at = self._clock()
                names.ABORTS.labels(self.envelope.pipeline, error.reason.lower()).inc()
                self._end(names.outcome_of(error.reason))
                self._caller.failed(error)
            case AbortReplica(replica):
                self._links[replica].abort(self.key)
            case Release(unanswered):
                self._settle(unanswered)
            case Dispatch():
                raise RuntimeError("a request is dispatched by its first event only")

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

    def _settle(self, unanswered: frozenset[int]) -> None:
        if self._failed_at is not None:
            names.ABORT_SECONDS.labels(self.envelope.pipeline).observe(self._clock() - self._failed_at)
        for number in unanswered:
            stage = self._links[number].replica.stage
            names.ABORT_TIMEOUTS.labels(stage).inc()
            logger.warning("abort unanswered", extra={**self._ids(), "stage": stage})
        self.released.set()
        self._release(self)
