"""The spans of this process's stage requests: one for each request and attempt in each stage.

Told by the stage on the event loop and by its scheduler in a thread of its own. As long as traces are off, or a request
is not sampled, nothing is kept here, and being told costs one look at an empty dictionary.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from opentelemetry.trace import Span

from omni_common.errors import Reason
from omni_common.request import Envelope, RequestKey
from omni_common.telemetry import names, spans
from omni_common.telemetry.tracing import Attributes, begin, end, is_on, record
from omni_stage.identity import Identity

MAX_EDGE_SPANS = 16
"""Large tensors of one stage request with a span of their own; a stage may stream thousands."""


@dataclass(slots=True)
class _Traced:
    span: Span
    spoke: bool = False
    outcome: str = names.COMPLETED
    tensors: int = 0
    size: int = 0


class StageSpans:
    """By stage and request. Any thread."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, RequestKey], _Traced] = {}

    def __len__(self) -> int:
        return len(self._live)

    def begin(self, me: Identity, envelope: Envelope) -> None:
        """The request is known in the stage."""
        if not is_on():
            return
        about: Attributes = {
            spans.PIPELINE: envelope.pipeline,
            spans.STAGE: me.stage,
            spans.REPLICA: me.replica,
            spans.POD: me.pod,
            spans.NODE: me.node,
            spans.REQUEST_ID: envelope.key.request_id,
            spans.ATTEMPT: envelope.key.attempt,
        }
        span = begin(spans.stage_span(me.stage), envelope.trace, about)
        if span.is_recording():
            self._live[me.stage, envelope.key] = _Traced(span)

    def queued(self, stage: str, key: RequestKey) -> None:
        if traced := self._find(stage, key):
            traced.span.add_event(spans.QUEUED)

    def running(self, stage: str, key: RequestKey, seconds: float) -> None:
        """Its first step began so long ago."""
        if traced := self._find(stage, key):
            traced.span.add_event(spans.RUNNING, timestamp=time.time_ns() - int(seconds * 1e9))

    def output(self, stage: str, key: RequestKey, *, last: bool = False) -> None:
        """The stage made something for the next ones or the caller."""
        if traced := self._find(stage, key):
            if not traced.spoke:
                traced.spoke = True
                traced.span.add_event(spans.FIRST_OUTPUT)
            if last:
                traced.span.add_event(spans.DONE)

    def moved(self, edge: str, key: RequestKey, transport: str, length: int, seconds: float) -> None:
        """A large tensor has come to the next stage; so long after it was handed over."""
        if traced := self._find(edge.partition(">")[0], key):
            traced.tensors += 1
            traced.size += length
            if traced.tensors <= MAX_EDGE_SPANS:
                about: Attributes = {spans.EDGE: edge, spans.TRANSPORT: transport, spans.BYTES: length}
                record(spans.edge_span(edge), traced.span, seconds, about)

    def failed(self, stage: str, key: RequestKey, reason: Reason) -> None:
        """The first failure counts."""
        traced = self._find(stage, key)
        if traced and traced.outcome == names.COMPLETED:
            traced.outcome = names.outcome_of(reason)

    def end(self, stage: str, key: RequestKey) -> None:
        """The stage has forgotten the request. One that is unknown changes nothing."""
        traced = self._live.pop((stage, key), None) if self._live else None
        if traced is not None:
            traced.span.set_attributes({spans.TENSORS: traced.tensors, spans.BYTES: traced.size})
            end(traced.span, traced.outcome)

    def span_of(self, stage: str, key: RequestKey) -> Span | None:
        traced = self._find(stage, key)
        return None if traced is None else traced.span

    def _find(self, stage: str, key: RequestKey) -> _Traced | None:
        return self._live.get((stage, key)) if self._live else None


STAGE_SPANS = StageSpans()
"""Of this process, as its metrics are."""
