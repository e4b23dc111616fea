"""Every metric and label of the mesh, with unit and meaning; the rest of the code imports these objects.

Base units, `_total` for counters, closed label sets: pipelines, stages and edges come from pipeline files; never a
request id, a client's string or an address.
"""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram

from omni_common.errors import Reason


class Transport(StrEnum):
    """How the bytes of a tensor cross an edge."""

    OBJECT = "object"
    """The value itself, between two stages of one process."""
    INLINE = "inline"
    """Inside the frame."""
    ARENA = "arena"
    """Through the pod's shared memory."""
    GRPC = "grpc"
    """In pieces beside the frames of the same stream: where there is no relay, or none that works."""
    TCP = "tcp"
    TLS = "tls"
    """TCP inside TLS records of the ssl module."""
    AEAD = "aead"
    """TCP with records sealed by AES-GCM."""
    UCX = "ucx"
    NIXL = "nixl"
    NCCL = "nccl"
    CUDA_IPC = "cuda_ipc"


COMPLETED = "completed"
"""The outcome of a request that did not fail; of others it is the reason, in small letters."""


def outcome_of(reason: Reason | None) -> str:
    """The `outcome` label: closed, since reasons are."""
    return COMPLETED if reason is None else reason.lower()


# From a step of a small model on a GPU to a whole answer of a large one on a laptop.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# From a small tensor in one pod to gigabytes on a slow network.
_TRANSFER_SECONDS = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    10,
)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RATIOS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2, 4, 8)

# Requests, as the coordinator sees them.
REQUESTS = Counter("omni_requests_total", "Requests that ended, by outcome.", ["pipeline", "outcome"])
LIVE_REQUESTS = Gauge("omni_live_requests", "Requests admitted and not yet ended.", ["pipeline"])
REQUEST_SECONDS = Histogram(
    "omni_request_seconds", "From admission to the end of a request.", ["pipeline", "outcome"], buckets=_SECONDS
)
ADMISSION_REFUSALS = Counter("omni_admission_refusals_total", "Requests refused at the door.", ["pipeline", "reason"])
ABORTS = Counter("omni_aborts_total", "Requests aborted in the stages.", ["pipeline", "reason"])
ABORT_SECONDS = Histogram(
    "omni_abort_seconds",
    "From an abort to the last stage's answer that nothing is left.",
    ["pipeline"],
    buckets=_SECONDS,
)
ABORT_TIMEOUTS = Counter("omni_abort_timeouts_total", "Aborts that a stage did not answer in time.", ["stage"])
FAILOVERS = Counter(
    "omni_failovers_total",
    "Requests that lost the replica of a stage, by what became of them: rerun or resumed by others, diverged or "
    "interrupted on the way, or no further because of no_replica, exhausted attempts, or because not_kept.",
    ["pipeline", "stage", "outcome"],
)
READY_REPLICAS = Gauge("omni_ready_replicas", "Replicas that take work.", ["pipeline", "stage"])

# Requests, as a caller sees them at the gateway.
HTTP_REQUESTS = Counter("omni_http_requests_total", "HTTP requests answered.", ["route", "method", "code"])
HTTP_IN_FLIGHT = Gauge("omni_http_in_flight", "HTTP requests under way.", ["route"])
STREAM_OUTCOMES = Counter(
    "omni_stream_outcomes_total",
    "Streamed answers by how they ended; their HTTP code cannot say.",
    ["route", "outcome"],
)
FIRST_OUTPUT_SECONDS = Histogram(
    "omni_time_to_first_output_seconds",
    "From the request to its first piece of text or speech.",
    ["pipeline"],
    buckets=_SECONDS,
)
FIRST_AUDIO_SECONDS = Histogram(
    "omni_time_to_first_audio_seconds", "From the request to its first piece of speech.", ["pipeline"], buckets=_SECONDS
)
AUDIO_RTF = Histogram(
    "omni_audio_rtf", "Time to make speech over its length; above 1 the listener waits.", ["pipeline"], buckets=_RATIOS
)
AUDIO_UNDERRUN_SECONDS = Histogram(
    "omni_audio_underrun_seconds",
    "How long a listener who plays an answer from its first piece of speech on would have waited for more, in all.",
    ["pipeline"],
    buckets=(0, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
INTER_TOKEN_SECONDS = Histogram(
    "omni_inter_token_seconds",
    "Between two pieces of text of one answer; what came at once shares the time.",
    ["pipeline"],
    buckets=_SECONDS[:13],
)
AUDIO_SECONDS = Counter("omni_audio_seconds_total", "Seconds of audio.", ["pipeline", "direction"])
TOKENS = Counter("omni_tokens_total", "Tokens; those of speech are codec frames.", ["pipeline", "kind", "modality"])

# Who may ask, and how safely; never a label that says who.
AUTH_FAILURES = Counter("omni_auth_failures_total", "Requests without a key that is known.", ["reason"])
KEY_LIMIT_REFUSALS = Counter(
    "omni_key_limit_refusals_total", "Requests refused because their key had used up its own limit.", ["limit"]
)
HTTPS_HANDSHAKE_FAILURES = Counter(
    "omni_https_handshake_failures_total", "Connections of callers that ended before TLS was agreed on.", ["reason"]
)
CERTIFICATE_EXPIRY = Gauge(
    "omni_certificate_expiry_timestamp_seconds",
    "Unix time of the end of a certificate in use, or of its CA if sooner.",
    ["certificate"],
)

# Stages.
STAGE_LIVE_REQUESTS = Gauge("omni_stage_live_requests", "Requests that the replica holds.", ["stage"])
STAGE_WAITING = Gauge("omni_stage_waiting", "Requests that wait for a place in a batch.", ["stage"])
STAGE_RUNNING = Gauge("omni_stage_running", "Requests in the running batch.", ["stage"])
STAGE_OLDEST_WAITING = Gauge(
    "omni_stage_oldest_waiting_seconds",
    "How long the oldest request, or chunk, that could be worked on has waited for that; 0 while none waits.",
    ["stage"],
)
STAGE_MAX_RUNNING = Gauge("omni_stage_max_running", "Requests that the replica runs at a time, at most.", ["stage"])
STAGE_MAX_WAITING = Gauge("omni_stage_max_waiting", "Requests that may wait in the replica beside them.", ["stage"])
STAGE_QUEUE_SECONDS = Histogram(
    "omni_stage_queue_seconds", "From a request's arrival to its first step.", ["stage"], buckets=_SECONDS
)
STAGE_RUNNING_SECONDS = Histogram(
    "omni_stage_running_seconds", "From a request's first step to its end in the stage.", ["stage"], buckets=_SECONDS
)
STAGE_BATCH_SIZE = Histogram("omni_stage_batch_size", "Requests in one step.", ["stage"], buckets=_COUNTS)
STAGE_STEP_SECONDS = Histogram("omni_stage_step_seconds", "One step of the model.", ["stage"], buckets=_SECONDS)
STAGE_FAILURES = Counter("omni_stage_failures_total", "Requests that failed in the stage.", ["stage", "reason"])
LATE_EVENTS = Counter("omni_late_events_total", "Events dropped because their request or attempt was over.", ["stage"])
PAUSES = Counter("omni_pauses_total", "Times that a request's way out was full and its work paused.", ["stage"])

# Autoregressive stages.
KV_CACHE_USAGE = Gauge(
    "omni_kv_cache_usage_ratio", "Sequences that hold keys and values, over the most that may.", ["stage"]
)
KV_CACHE_TOKENS = Gauge("omni_kv_cache_tokens", "Tokens whose keys and values are held.", ["stage"])
KV_CACHE_BYTES = Gauge("omni_kv_cache_bytes", "Memory that keys and values take, with room to grow.", ["stage"])
PREFIX_CACHE_BYTES = Gauge(
    "omni_prefix_cache_bytes", "Memory of the beginnings of prompts that are kept for requests to come.", ["stage"]
)
PROMPT_TOKENS = Counter(
    "omni_stage_prompt_tokens_total",
    "Tokens of prompts: computed, or prefix_hit where keys and values were there from an earlier request.",
    ["stage", "kind"],
)

# Edges and the data plane; an edge is "from>to". These count at the producing stage.
EDGE_BYTES = Counter("omni_edge_bytes_total", "Bytes of tensors sent.", ["edge", "transport"])
EDGE_TRANSFERS = Counter("omni_edge_transfers_total", "Tensors sent.", ["edge", "transport"])
EDGE_SECONDS = Histogram(
    "omni_edge_transfer_seconds",
    "From a tensor's hand-over to the relay to the receiver's word that it has it.",
    ["edge", "transport"],
    buckets=_TRANSFER_SECONDS,
)
EDGE_WAIT_SECONDS = Histogram(
    "omni_edge_credit_wait_seconds",
    "How long a tensor waited for room in an arena.",
    ["edge"],
    buckets=_TRANSFER_SECONDS,
)
EDGE_RETRIES = Counter("omni_edge_retries_total", "Tensors sent again by the next transport.", ["edge", "transport"])
EDGE_TRANSPORT = Gauge(
    "omni_edge_transport_info",
    "1 for the transport that an edge uses for large tensors, and why.",
    ["edge", "transport", "reason"],
)
TENSOR_COPIES = Counter(
    "omni_tensor_copies_total", "Tensors copied on their way where they need not be, by why.", ["reason"]
)
CHECKSUM_FAILURES = Counter("omni_checksum_failures_total", "Tensors refused: lost, or not what was sent.")

# The arena, as the replicas that allocate in it see their own shares.
ARENA_IN_USE = Gauge("omni_arena_in_use_bytes", "Bytes that are leased to tensors.", ["stage"])
ARENA_HELD = Gauge("omni_arena_held_bytes", "Bytes of the extents that this replica holds.", ["stage"])
ARENA_FULL = Counter("omni_arena_full_total", "Tensors that had to wait for room in the arena.")
ARENA_RECLAIMED = Counter("omni_arena_reclaimed_total", "Slots taken back because their release never came.")

# The relay.
RELAY_ARENA_BYTES = Gauge("omni_relay_arena_bytes", "Bytes of the pod's arena, by who has them.", ["holder"])
RELAY_RECLAIMED = Counter("omni_relay_reclaimed_bytes_total", "Bytes taken back from producers that died.", ["holder"])
RELAY_STAGES = Gauge("omni_relay_stages", "Stages of the pod that are connected.")
RELAY_PEERS = Gauge("omni_relay_peers", "Connected relays of other pods.", ["direction", "transport", "reason"])
RELAY_BYTES = Counter("omni_relay_bytes_total", "Bytes of tensors moved.", ["edge", "direction", "transport"])
RELAY_TRANSFERS = Counter(
    "omni_relay_transfers_total", "Tensors moved, by how that ended.", ["edge", "direction", "transport", "outcome"]
)
RELAY_SECONDS = Histogram(
    "omni_relay_transfer_seconds",
    "From a push's arrival at the relay to the other relay's word.",
    ["edge", "transport"],
    buckets=_TRANSFER_SECONDS,
)
RELAY_WAIT_SECONDS = Histogram(
    "omni_relay_credit_wait_seconds",
    "How long a push waited for space that the other relay grants.",
    ["edge"],
    buckets=_TRANSFER_SECONDS,
)
RELAY_RETRIES = Counter("omni_relay_retries_total", "Pieces or tensors sent again.", ["transport", "reason"])
RELAY_CHECKSUM_FAILURES = Counter("omni_relay_checksum_failures_total", "Pieces that came damaged.", ["transport"])
RELAY_REFUSED_PEERS = Counter("omni_relay_refused_peers_total", "Connections refused or cut.", ["reason"])

# TLS between components; that of the relays' own wire counts among their refused peers.
TLS_REFUSALS = Counter(
    "omni_tls_refusals_total",
    "gRPC connections and calls refused for their certificate: those that this process dialled, by what it said of the "
    "peer's; those that came to it, by the component (role), by a handshake that skips certificates (resumed), or "
    "because they came to no call (unproven).",
    ["reason"],
)

# The process.
SERVING = Gauge("omni_serving", "1 while the process takes work.")
EVENT_LOOP_LAG_SECONDS = Histogram(
    "omni_event_loop_lag_seconds", "How late the event loop runs what is due.", buckets=_SECONDS[:12]
)
BUILD_INFO = Gauge("omni_build_info", "Always 1; its labels say what runs.", ["service", "version"])
