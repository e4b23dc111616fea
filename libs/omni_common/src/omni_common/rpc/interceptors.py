"""What every handler is wrapped in: an exception becomes a status, and an unknown one is logged once.

Handlers of all four kinds are coroutines here (a streaming handler writes, it never yields), so one wrapper serves;
other people's generators, such as the reflection service, pass through untouched.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio

from omni_common.errors import Internal, OmniError
from omni_common.rpc.duplex import PeerGone
from omni_common.rpc.status import abort_with

logger = logging.getLogger(__name__)

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """OmniError → its status; PeerGone → nothing, since nobody listens; anything else → INTERNAL, logged."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        behaviour, make = parts_of(handler)
        if not inspect.iscoroutinefunction(behaviour):
            return handler
        return make(
            _guarded(behaviour, handler_call_details.method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def parts_of(handler: Any) -> tuple[Any, Callable[..., Any]]:
    """A handler's behaviour, and what makes a handler of its kind of another one."""
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return handler.unary_unary, grpc.unary_unary_rpc_method_handler
        case False, True:
            return handler.unary_stream, grpc.unary_stream_rpc_method_handler
        case True, False:
            return handler.stream_unary, grpc.stream_unary_rpc_method_handler
        case _:
            return handler.stream_stream, grpc.stream_stream_rpc_method_handler


def _guarded(behaviour: Behaviour, method: str) -> Behaviour:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  # the edge of the process: a caller gets a status, whatever broke
            shown = _shown(error, method)
        if shown is None:
            return None
        return await abort_with(context, shown)

    return guarded


def _shown(error: Exception, method: str) -> OmniError | None:
    """What the caller is told: the first named failure, unless one is unknown."""
    causes = list(_leaves(error))
    if any(not isinstance(cause, OmniError) for cause in causes):
        logger.error("rpc failed", exc_info=error, extra={"method": method})
        return Internal()
    named = [cause for cause in causes if isinstance(cause, OmniError) and not isinstance(cause, PeerGone)]
    return named[0] if named else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
