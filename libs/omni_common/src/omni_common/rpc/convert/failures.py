"""Failures that travel in band."""

from __future__ import annotations

from omni.common.v1 import failure_pb2
from omni_common.errors import OmniError, Reason

_PREFIX = "REASON_"


def failure_of(error: OmniError) -> failure_pb2.Failure:
    """The error as it travels."""
    failure = failure_pb2.Failure(
        reason=failure_pb2.Reason.Value(f"{_PREFIX}{error.reason}"),
        message=error.message,
        param=error.param or "",
        stage=error.stage or "",
        code=error.code or "",
    )
    if error.retry_after is not None:
        failure.retry_after.FromTimedelta(error.retry_after)
    return failure


def error_of(failure: failure_pb2.Failure) -> OmniError:
    """The inverse. A reason that only a newer peer knows is INTERNAL here."""
    return OmniError(
        _reason(failure.reason),
        failure.message,
        param=failure.param or None,
        stage=failure.stage or None,
        code=failure.code or None,
        retry_after=failure.retry_after.ToTimedelta() if failure.HasField("retry_after") else None,
    )


def _reason(number: failure_pb2.Reason.ValueType) -> Reason:
    if number not in failure_pb2.Reason.values():
        return Reason.INTERNAL
    name = failure_pb2.Reason.Name(number).removeprefix(_PREFIX)
    return Reason(name) if name in Reason.__members__ else Reason.INTERNAL
