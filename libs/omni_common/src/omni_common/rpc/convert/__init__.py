"""Wire messages ⇄ domain values. `parse_*` returns what cannot be wrong or raises InvalidRequest; `render_*` is its
inverse. Nothing below this border reads a message of `omni.common.v1`, except the data plane its payloads."""

from omni_common.rpc.convert.envelope import (
    duration_of,
    parse_envelope,
    parse_key,
    parse_trace,
    render_envelope,
    render_key,
    render_trace,
    seconds_of,
)
from omni_common.rpc.convert.failures import error_of, failure_of
from omni_common.rpc.convert.params import (
    parse_modality,
    parse_params,
    parse_sampling,
    parse_task,
    render_modality,
    render_params,
    render_sampling,
    render_task,
)
from omni_common.rpc.convert.requests import parse_request, render_request
from omni_common.rpc.convert.results import (
    parse_finish_reason,
    parse_output,
    parse_report,
    parse_result,
    parse_usage,
    render_finish_reason,
    render_output,
    render_report,
    render_result,
    render_usage,
)

__all__ = [
    "duration_of",
    "error_of",
    "failure_of",
    "parse_envelope",
    "parse_finish_reason",
    "parse_key",
    "parse_modality",
    "parse_output",
    "parse_params",
    "parse_report",
    "parse_request",
    "parse_result",
    "parse_sampling",
    "parse_task",
    "parse_trace",
    "parse_usage",
    "render_envelope",
    "render_finish_reason",
    "render_key",
    "render_modality",
    "render_output",
    "render_params",
    "render_report",
    "render_request",
    "render_result",
    "render_sampling",
    "render_task",
    "render_trace",
    "render_usage",
    "seconds_of",
]
