"""Every span of the mesh, with its events and attributes; the rest of the code imports these names.

One request is one trace. In it, one below the other: the gateway's span, the coordinator's, one for each stage that
served the request and each attempt, one for each large tensor that a stage sent.

Values come from closed sets, are numbers, or are names that the mesh has made; never a prompt, an output, media, a key
or anything else that a caller wrote. (What a caller's `tracestate` says is its own: W3C has it travel with the trace.)
"""

from __future__ import annotations

# Spans.
GATEWAY = "gateway"
AUDIO_ENCODE = "audio.encode"
COORDINATOR = "coordinator"


def stage_span(stage: str) -> str:
    return f"stage.{stage}"


def edge_span(edge: str) -> str:
    """`edge` is "from>to"."""
    return f"edge.{edge}"


# Events.
FIRST_OUTPUT = "first output"
FIRST_AUDIO = "first audio"
ADMITTED = "admitted"
FAILOVER = "failover"
"""A replica was lost that served the request; the event's own attributes say of which stage, and the outcome."""
QUEUED = "queued"
"""All that the stage waits for is there: the request waits for the stage."""
RUNNING = "running"
"""The stage's first step for it has begun."""
DONE = "done"
"""The stage has worked on it; what it sent may be under way still."""

# Attributes.
ROUTE = "http.route"
HTTP_REQUEST_ID = "omni.http_request_id"
"""The gateway's own, which its caller gets as x-request-id."""
REQUEST_ID = "omni.request_id"
ATTEMPT = "omni.attempt"
PIPELINE = "omni.pipeline"
STREAMED = "omni.streamed"
COORDINATOR_ID = "omni.coordinator"
STAGE = "omni.stage"
REPLICA = "omni.replica"
POD = "omni.pod"
NODE = "omni.node"
OUTCOME = "omni.outcome"
"""`completed`, or the reason of the failure in small letters, as in metrics."""
ERROR = "error.type"
"""The same, where it is a failure."""
EDGE = "omni.edge"
TRANSPORT = "omni.transport"
BYTES = "omni.bytes"
TENSORS = "omni.tensors"
FORMAT = "omni.audio.format"
AUDIO_SECONDS = "omni.audio.seconds"
BUSY_SECONDS = "omni.busy_seconds"
