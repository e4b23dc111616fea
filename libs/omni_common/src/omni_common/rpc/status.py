"""OmniError ⇄ gRPC status. With the interceptor, the only code that knows both vocabularies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from omni_common.errors import OmniError, Reason

DOMAIN = "omni"
DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_LIMIT = 1000  # HTTP/2 headers carry it twice, and peers refuse more than 8 KiB of them

# What a status means that carries no ErrorInfo of ours: the transport made it, or a proxy.
_REASONS = {
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: Reason.MODEL_NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNSUPPORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    grpc.StatusCode.UNAVAILABLE: Reason.STAGE_UNAVAILABLE,
    grpc.StatusCode.ABORTED: Reason.LEASE_LOST,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
}


async def abort_with(
    context: grpc.aio.ServicerContext[Any, Any], error: OmniError, *, request_id: str = ""
) -> NoReturn:
    """Ends the RPC with the error's status. Raises what grpc.aio uses to leave the handler."""
    status = status_of(error, request_id=request_id)
    await context.abort(
        error.surface.grpc,
        status.message,
        trailing_metadata=((DETAILS_KEY, status.SerializeToString()),),
    )


def status_of(error: OmniError, *, request_id: str = "") -> status_pb2.Status:
    """The error as google.rpc.Status with ErrorInfo, and RetryInfo where the time is known."""
    facts = {"stage": error.stage, "param": error.param, "code": error.code, "request_id": request_id}
    status = status_pb2.Status(code=error.surface.grpc.value[0], message=error.message[:_MESSAGE_LIMIT])
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=DOMAIN, metadata={name: fact for name, fact in facts.items() if fact}
        )
    )
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(retry)
    return status


def error_of_status(status: status_pb2.Status) -> OmniError | None:
    """The inverse of `status_of`; None when the status is not one of ours."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    after: timedelta | None = None
    for detail in status.details:
        if detail.Unpack(retry):
            after = retry.retry_delay.ToTimedelta()
        else:
            detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    fact = info.metadata.get
    return OmniError(
        Reason(info.reason),
        status.message,
        param=fact("param"),
        stage=fact("stage"),
        code=fact("code"),
        retry_after=after,
    )


def error_from_rpc(error: grpc.aio.AioRpcError) -> OmniError:
    """The failure of a call as an OmniError, from its details where the peer is one of ours."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            known = _parsed(value)
            if known is not None:
                return known
    reason = _REASONS.get(error.code(), Reason.INTERNAL)
    return OmniError(reason, f"A peer in the mesh answered {error.code().name}.")


@contextmanager
def translate_rpc_errors() -> Iterator[None]:
    """Around a client's call: what grpc.aio raises becomes an OmniError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error


def _parsed(value: bytes) -> OmniError | None:
    try:
        return error_of_status(status_pb2.Status.FromString(value))
    except DecodeError:
        return None
