"""Failures as HTTP replies: the only place that writes an OpenAI error body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from omni_common.errors import InvalidRequest, OmniError, Reason, Unsupported
from omni_gateway.schemas import UNKNOWN, UNSUPPORTED

# OpenAI's clients give up when they are told to wait longer than this.
MAX_RETRY_AFTER = 120.0
# Where a retry may help and nobody knows when: a stage that died is back within seconds.
DEFAULT_RETRY_AFTER = 1.0

# Nobody is left to read it; it only shows in metrics.
CALLER_LEFT = 499


class HttpError(Exception):
    """A failure of plain HTTP, whose status is not in the table of reasons."""

    def __init__(self, status: int, error: OmniError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = headers or {}


class JsonReply(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return orjson.dumps(content)


def error_body(error: OmniError) -> dict[str, object]:
    """OpenAI's error object: all four keys are required, param and code may be null."""
    surface = error.surface
    return {
        "error": {
            "message": error.message,
            "type": surface.type,
            "param": error.param or None,
            "code": error.code or surface.code,
        }
    }


def error_reply(error: OmniError) -> JsonReply:
    """The reply to a request that failed before its first byte."""
    surface = error.surface
    # The official clients retry every 5xx by themselves unless told otherwise: a failing generation would run thrice.
    headers = {"x-should-retry": "true" if surface.retry else "false"}
    if surface.retry:
        after = DEFAULT_RETRY_AFTER if error.retry_after is None else error.retry_after.total_seconds()
        seconds = min(max(after, 0.001), MAX_RETRY_AFTER)
        headers["retry-after"] = str(ceil(seconds))
        headers["retry-after-ms"] = str(ceil(seconds * 1000))
    if error.reason is Reason.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return JsonReply(error_body(error), status_code=surface.http or CALLER_LEFT, headers=headers)


def http_error_reply(failure: HttpError) -> JsonReply:
    headers = {"x-should-retry": "false", **failure.headers}
    return JsonReply(error_body(failure.error), status_code=failure.status, headers=headers)


def json_path(location: Sequence[str | int]) -> str:
    """`messages[0].content[1].image_url` from pydantic's location, without the names of union members."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith("<"):
            path += f".{step}" if path else step
    # Keys of mappings are the caller's own; nobody needs to see a long one again.
    return path[:256]


_PLAIN = {
    "model_type": "it must be a JSON object",
    "model_attributes_type": "it must be a JSON object",
    "string_pattern_mismatch": "it does not have the form that is asked for",
}


def refusal(error: ValidationError) -> OmniError:
    """The first fault of a body, as a sentence that names its place and repeats nothing that the caller sent."""
    fault = error.errors(include_url=False, include_input=False)[0]
    param = json_path(fault["loc"]) or None
    match fault["type"]:
        case "missing":
            return InvalidRequest(
                f"The parameter '{param}' is required.", param=param, code="missing_required_parameter"
            )
        case "extra_forbidden":
            return Unsupported(f"The parameter '{param}' is not supported by this server.", param=param)
        case str(kind) if kind == UNSUPPORTED:
            return Unsupported(f"This value of '{param}' is not supported by this server.", param=param)
        case str(kind) if kind.startswith(UNKNOWN):
            param = f"{param}.{kind.removeprefix(UNKNOWN)}"
    code = "string_above_max_length" if fault["type"] == "string_too_long" else "invalid_value"
    # Pydantic's own words for these name classes and patterns of ours.
    what = _PLAIN.get(fault["type"], fault["msg"][:1].lower() + fault["msg"][1:])
    return InvalidRequest(f"The parameter '{param or 'body'}' is wrong: {what}.", param=param, code=code)
