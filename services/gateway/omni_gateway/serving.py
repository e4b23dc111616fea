"""What every endpoint that generates shares: a place among the live requests, a deadline, a log line, metrics."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from omni_common.clock import Clock
from omni_common.deadline import Deadline
from omni_common.errors import OmniError, Overloaded, Reason
from omni_common.request import GenerationRequest, TraceContext
from omni_common.telemetry.logs import bound
from omni_common.telemetry.names import COMPLETED, STREAM_OUTCOMES, outcome_of
from omni_common.telemetry.tracing import context_of, log_ids, trace_from_headers
from omni_gateway.call import Call
from omni_gateway.client import Client
from omni_gateway.http.body import BodyReader
from omni_gateway.http.held import HeldBytes
from omni_gateway.http.sending import Sender, while_connected
from omni_gateway.settings import GatewaySettings
from omni_gateway.tally import Tally
from omni_gateway.traced import gateway_span, note_request

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """One HTTP request that holds a place."""

    route: str
    headers: Headers
    trace: TraceContext
    deadline: Deadline
    tally: Tally
    sender: Sender

    @property
    def wants_timings(self) -> bool:
        return self.headers.get("x-omni-stage-timings", "").lower() == "true"


class Serving:
    """One for the process; the endpoints hold nothing of their own that is bounded."""

    def __init__(self, client: Client, settings: GatewaySettings, *, clock: Clock) -> None:
        self.client = client
        self.settings = settings
        self.encoders = anyio.CapacityLimiter(settings.encoder_threads)
        self.bodies = BodyReader(
            max_body=settings.max_body,
            max_total=settings.max_buffered_bodies,
            timeout=settings.body_timeout.total_seconds(),
        )
        self.replies = HeldBytes(settings.max_buffered_replies, "replies")
        self._clock = clock
        self._live = 0

    @contextmanager
    def visit(self, scope: Scope, send: Send, route: str) -> Iterator[Visit]:
        """Raises Overloaded when there is no place; nobody waits for one."""
        headers = Headers(scope=scope)
        trace = trace_from_headers(headers)
        with gateway_span(scope, route, trace) as root, self._place(), bound(**log_ids(context_of(root, trace), root)):
            yield Visit(
                route,
                headers,
                context_of(root, trace),
                Deadline.after(self.settings.request_timeout.total_seconds(), self._clock),
                Tally(self._clock, self._clock()),
                Sender(scope, send, stall=self.settings.stall_timeout.total_seconds()),
            )

    async def answer(
        self,
        visit: Visit,
        receive: Receive,
        request: GenerationRequest,
        work: Callable[[Call], Awaitable[None]],
        *,
        streamed: bool,
    ) -> None:
        """Submits the request and lets `work` answer it, for as long as the caller is there.

        Raises OmniError only as long as nothing was sent: later the caller has been told in the stream, or can be told
        nothing any more.
        """
        deadline = visit.deadline if streamed else _no_longer_than_caller(visit.deadline, visit.headers)
        try:
            with (
                self._counted(visit, request.model, streamed=streamed),
                self.client.submit(request, deadline=deadline, trace=visit.trace) as call,
            ):
                await while_connected(receive, lambda: work(call))
        except OmniError:
            if not visit.sender.started:
                raise

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._live >= self.settings.max_live_requests:
            raise Overloaded(f"The gateway serves {self._live} requests, as many as it may.")
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1

    @contextmanager
    def _counted(self, visit: Visit, model: str, *, streamed: bool) -> Iterator[None]:
        """The one log line and the metrics of a request that was understood, however it ends."""
        tally, outcome = visit.tally, "cancelled"
        try:
            yield
            outcome = COMPLETED
        except OmniError as error:
            outcome = outcome_of(error.reason)
            raise
        except Exception:  # a bug, which is answered and logged elsewhere; a cancelled request is none
            outcome = outcome_of(Reason.INTERNAL)
            raise
        finally:
            tally.record(model)
            note_request(tally, model, outcome, streamed=streamed)
            if streamed:
                STREAM_OUTCOMES.labels(visit.route, outcome).inc()
            logger.info(
                "request ended",
                extra={
                    "route": visit.route,
                    "outcome": outcome,
                    "model": model,
                    "mesh_request_id": tally.request_id,
                    "seconds": round(self._clock() - tally.began, 4),
                    "first_output_seconds": tally.first_output,
                },
            )


def _no_longer_than_caller(deadline: Deadline, headers: Headers) -> Deadline:
    """OpenAI's clients say how long they wait for bytes; nothing is made for one that has hung up by then."""
    told = headers.get("x-stainless-read-timeout", "")
    try:
        seconds = float(told)
    except ValueError:
        return deadline
    return deadline.sooner(seconds) if seconds > 0 else deadline
