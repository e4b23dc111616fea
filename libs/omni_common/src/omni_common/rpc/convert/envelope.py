"""What travels with a request. Moments cross hops as time left and age, since no two processes share a clock."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from omni.common.v1 import request_pb2
from omni_common.errors import InvalidRequest
from omni_common.request import Binding, Envelope, RequestKey, TraceContext
from omni_common.rpc.convert.params import parse_params, render_params

_MAX_SECONDS = 365 * 24 * 3600.0  # what Duration holds and a float counts in nanoseconds without loss worth naming


def duration_of(seconds: float) -> Duration:
    """Seconds as they travel; at most a year either way."""
    duration = Duration()
    duration.FromNanoseconds(round(max(-_MAX_SECONDS, min(_MAX_SECONDS, seconds)) * 1e9))
    return duration


def seconds_of(duration: Duration) -> float:
    return duration.seconds + duration.nanos * 1e-9


def render_key(key: RequestKey) -> request_pb2.RequestKey:
    return request_pb2.RequestKey(request_id=key.request_id, attempt=key.attempt)


def parse_key(message: request_pb2.RequestKey) -> RequestKey:
    if not message.request_id:
        raise InvalidRequest("An event names no request.")
    return RequestKey(message.request_id, message.attempt)


def render_trace(trace: TraceContext) -> request_pb2.TraceContext:
    return request_pb2.TraceContext(traceparent=trace.traceparent, tracestate=trace.tracestate)


def parse_trace(message: request_pb2.TraceContext) -> TraceContext:
    return TraceContext(message.traceparent, message.tracestate)


def render_envelope(envelope: Envelope, now: float) -> request_pb2.Envelope:
    """`now` is this process's monotonic clock."""
    return request_pb2.Envelope(
        key=render_key(envelope.key),
        pipeline=envelope.pipeline,
        coordinator=envelope.coordinator,
        remaining=duration_of(envelope.deadline - now),
        age=duration_of(now - envelope.origin),
        trace=render_trace(envelope.trace),
        bindings={stage: _render_binding(bound) for stage, bound in envelope.bindings.items()},
        terminals=sorted(envelope.terminals),
        params=render_params(envelope.params),
        output_credits=envelope.output_credits,
    )


def parse_envelope(message: request_pb2.Envelope, now: float) -> Envelope:
    """The inverse, on another process's clock."""
    if not message.terminals:
        raise InvalidRequest("An envelope names no terminal stage.")
    return Envelope(
        key=parse_key(message.key),
        pipeline=message.pipeline,
        coordinator=message.coordinator,
        deadline=now + seconds_of(message.remaining),
        origin=now - seconds_of(message.age),
        bindings={stage: _parse_binding(bound) for stage, bound in message.bindings.items()},
        terminals=frozenset(message.terminals),
        params=parse_params(message.params),
        output_credits=message.output_credits,
        trace=parse_trace(message.trace),
    )


def _render_binding(binding: Binding) -> request_pb2.Binding:
    return request_pb2.Binding(replica=binding.replica, address=binding.address, pod=binding.pod, relay=binding.relay)


def _parse_binding(message: request_pb2.Binding) -> Binding:
    return Binding(message.replica, message.address, message.pod, message.relay)
