"""One taxonomy, one table: why a request fails, and how each kind of caller sees it.

`SURFACE` is the only place that pairs a reason with a gRPC status, an HTTP status, an OpenAI error body and the
advice to retry. Adapters read it and hold no cases of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Reason(StrEnum):
    """Why a request failed. The same list as `omni.common.v1.Reason`."""

    INVALID_REQUEST = "INVALID_REQUEST"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    UNSUPPORTED = "UNSUPPORTED"
    OVERLOADED = "OVERLOADED"
    STAGE_UNAVAILABLE = "STAGE_UNAVAILABLE"
    LEASE_LOST = "LEASE_LOST"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    STAGE_FAILED = "STAGE_FAILED"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    INTERNAL = "INTERNAL"
    DATA_CORRUPTED = "DATA_CORRUPTED"


@dataclass(frozen=True, slots=True)
class Surface:
    """How callers see one reason. `http` 0 means that nobody is left to be answered."""

    grpc: grpc.StatusCode
    http: int
    type: str
    code: str | None
    retry: bool


SURFACE: Mapping[Reason, Surface] = {
    Reason.INVALID_REQUEST: Surface(grpc.StatusCode.INVALID_ARGUMENT, 400, "invalid_request_error", None, retry=False),
    Reason.CONTEXT_TOO_LONG: Surface(
        grpc.StatusCode.INVALID_ARGUMENT,
        400,
        "invalid_request_error",
        "context_length_exceeded",
        retry=False,
    ),
    Reason.REQUEST_TOO_LARGE: Surface(
        grpc.StatusCode.INVALID_ARGUMENT,
        413,
        "invalid_request_error",
        "request_too_large",
        retry=False,
    ),
    Reason.UNAUTHENTICATED: Surface(
        grpc.StatusCode.UNAUTHENTICATED, 401, "invalid_request_error", "invalid_api_key", retry=False
    ),
    Reason.FORBIDDEN: Surface(
        grpc.StatusCode.PERMISSION_DENIED, 403, "permission_error", "permission_denied", retry=False
    ),
    Reason.MODEL_NOT_FOUND: Surface(
        grpc.StatusCode.NOT_FOUND, 404, "invalid_request_error", "model_not_found", retry=False
    ),
    Reason.UNSUPPORTED: Surface(
        grpc.StatusCode.UNIMPLEMENTED,
        400,
        "invalid_request_error",
        "unsupported_parameter",
        retry=False,
    ),
    Reason.OVERLOADED: Surface(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "overloaded", retry=True),
    Reason.STAGE_UNAVAILABLE: Surface(
        grpc.StatusCode.UNAVAILABLE, 503, "server_error", "stage_unavailable", retry=True
    ),
    Reason.LEASE_LOST: Surface(grpc.StatusCode.ABORTED, 503, "server_error", "lease_lost", retry=True),
    Reason.DEADLINE_EXCEEDED: Surface(
        grpc.StatusCode.DEADLINE_EXCEEDED, 504, "server_error", "deadline_exceeded", retry=False
    ),
    Reason.CANCELLED: Surface(grpc.StatusCode.CANCELLED, 0, "server_error", None, retry=False),
    Reason.STAGE_FAILED: Surface(grpc.StatusCode.INTERNAL, 500, "server_error", "stage_failed", retry=False),
    Reason.SLOW_CONSUMER: Surface(grpc.StatusCode.ABORTED, 408, "server_error", "slow_consumer", retry=False),
    Reason.INTERNAL: Surface(grpc.StatusCode.INTERNAL, 500, "server_error", "internal", retry=False),
    Reason.DATA_CORRUPTED: Surface(grpc.StatusCode.DATA_LOSS, 503, "server_error", "data_corrupted", retry=True),
}


class OmniError(Exception):
    """A request's failure: a reason for code, a sentence for people.

    `param` names the part of the request at fault as a JSON path, `stage` the stage that failed, `code` refines the
    OpenAI code of the reason, `retry_after` says when a retry may succeed.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        param: str | None = None,
        stage: str | None = None,
        code: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.param = param
        self.stage = stage
        self.code = code
        self.retry_after = retry_after

    @property
    def surface(self) -> Surface:
        return SURFACE[self.reason]


class InvalidRequest(OmniError):
    """The caller's request cannot be served as it stands."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(Reason.INVALID_REQUEST, message, param=param, code=code)


class Unsupported(OmniError):
    """The request asks for what this pipeline or this version does not do."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(Reason.UNSUPPORTED, message, param=param)


class WrongTask(OmniError):
    """The model is asked for what it cannot do, while others may."""

    def __init__(self, model: str, task: str, able: Iterable[str]) -> None:
        others = ", ".join(sorted(able))
        can = f"these can: {others}" if others else "no model here can"
        super().__init__(
            Reason.UNSUPPORTED, f"The model '{model}' does no {task}; {can}.", param="model", code="unsupported_model"
        )


class ContextTooLong(OmniError):
    """The prompt does not fit the model's context."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            Reason.CONTEXT_TOO_LONG,
            f"The prompt has {tokens} tokens; this model's context holds {limit}.",
            param="messages",
        )


class Overloaded(OmniError):
    """No room for another request just now."""

    def __init__(self, message: str, *, stage: str | None = None) -> None:
        super().__init__(Reason.OVERLOADED, message, stage=stage, retry_after=timedelta(seconds=1))


class StageUnavailable(OmniError):
    """No replica of a stage can be reached."""

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(
            Reason.STAGE_UNAVAILABLE,
            f"Stage '{stage}' {why}.",
            stage=stage,
            retry_after=timedelta(seconds=1),
        )


class StageFailed(OmniError):
    """A stage's model code raised."""

    def __init__(self, stage: str) -> None:
        super().__init__(Reason.STAGE_FAILED, f"Stage '{stage}' failed while serving this request.", stage=stage)


class DeadlineExceeded(OmniError):
    """The request's time is over."""

    def __init__(self) -> None:
        super().__init__(Reason.DEADLINE_EXCEEDED, "The request did not finish before its deadline.")


class Cancelled(OmniError):
    """The caller left."""

    def __init__(self) -> None:
        super().__init__(Reason.CANCELLED, "The request was cancelled by its caller.")


class LeaseLost(OmniError):
    """A reference to a tensor no longer holds."""

    def __init__(self, what: str) -> None:
        super().__init__(Reason.LEASE_LOST, f"A tensor between two stages was lost: {what}.")


class DataCorrupted(OmniError):
    """A tensor's bytes are not those that were sent, also after they were sent again."""

    def __init__(self) -> None:
        super().__init__(Reason.DATA_CORRUPTED, "A tensor between two stages was damaged on its way, twice.")


class Internal(OmniError):
    """Something broke that should not; the logs know more."""

    def __init__(self, message: str = "The server met an internal error.") -> None:
        super().__init__(Reason.INTERNAL, message)


def openai_error(error: OmniError) -> tuple[int, dict[str, object], dict[str, str]]:
    """HTTP status, body and headers as OpenAI's clients expect them.

    Their official client retries every 408, 409, 429 and 5xx by itself unless `x-should-retry` says no: without the
    header a failing generation would run three times.
    """
    surface = error.surface
    body: dict[str, object] = {
        "error": {
            "message": error.message,
            "type": surface.type,
            "param": error.param,
            "code": error.code or surface.code,
        }
    }
    headers = {"x-should-retry": "true" if surface.retry else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after.total_seconds())))
    return surface.http, body, headers
