"""One long-lived stream of frames, seen from either end.

Facts of grpc.aio that this file hides:

* A coroutine cancelled inside `read` or `write` of a client call cancels the whole call, and cancelled calls leak
  native memory. So a stream is ended by `end` and by reading to its end, and cancelling is the last resort.
* A peer that left shows as AioRpcError on the client's side, and as InternalError, UsageError or a cancelled handler
  on the server's. Here it is PeerGone.
"""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from omni_common.errors import OmniError, Reason
from omni_common.rpc.status import error_from_rpc

Read = TypeVar("Read", bound=Message)
Written = TypeVar("Written", bound=Message)
Read_co = TypeVar("Read_co", bound=Message, covariant=True)
Written_contra = TypeVar("Written_contra", bound=Message, contravariant=True)


class PeerGone(OmniError):
    """The other end of a stream cannot be reached any more."""

    def __init__(self, why: str = "the connection was lost") -> None:
        super().__init__(Reason.STAGE_UNAVAILABLE, f"A peer in the mesh is gone: {why}.")


class Duplex(Protocol[Read_co, Written_contra]):
    """A stream of frames in both directions. One task reads and one task writes."""

    async def read(self) -> Read_co | None:
        """The next frame; None when the peer has ended its direction. Raises PeerGone."""

    async def write(self, frame: Written_contra) -> None:
        """Returns when the transport has room for it. Raises PeerGone."""

    async def end(self) -> None:
        """Says that no frame follows. The peer ends its direction then, and `read` returns None after its last frame.
        A server's stream ends when its handler returns, so there `read` returns None at once."""


class _ServerDuplex(Generic[Read, Written]):
    def __init__(self, context: grpc.aio.ServicerContext[Read, Written]) -> None:
        self._context = context
        self._reader: asyncio.Task[object] | None = None
        self._ended = False

    async def read(self) -> Read | None:
        if self._ended:
            return None
        self._reader = asyncio.current_task()
        try:
            frame = await self._context.read()
        except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
            raise PeerGone from error
        except asyncio.CancelledError:
            if not self._interrupted():
                raise
            return None
        finally:
            self._reader = None
        return None if _is_end(frame) else frame

    async def write(self, frame: Written) -> None:
        try:
            await self._context.write(frame)
        except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
            raise PeerGone from error

    async def end(self) -> None:
        self._ended = True
        if self._reader is not None:
            self._reader.cancel()

    def _interrupted(self) -> bool:
        """Whether it was `end` that cancelled the read: by the task, since a scope around each read costs more than the
        rest of it. A scope around the stream that is cancelled as well will say so again."""
        return self._ended and self._reader is not None and self._reader.uncancel() == 0


class _ClientDuplex(Generic[Written, Read]):
    def __init__(self, call: grpc.aio.StreamStreamCall[Written, Read]) -> None:
        self._call = call

    async def read(self) -> Read | None:
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _lost(error) from error
        return None if _is_end(frame) else frame  # type: ignore[return-value]  # the end marker is an object

    async def write(self, frame: Written) -> None:
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as error:
            raise _lost(error) from error
        except asyncio.InvalidStateError as error:  # how grpc.aio says that the call is over
            raise PeerGone("the stream has ended") from error

    async def end(self) -> None:
        await self._call.done_writing()


def server_duplex(context: grpc.aio.ServicerContext[Read, Written]) -> Duplex[Read, Written]:
    """The stream of a handler that is running."""
    return _ServerDuplex(context)


def client_duplex(call: grpc.aio.StreamStreamCall[Written, Read]) -> Duplex[Read, Written]:
    """The stream of a call; prefer `session.client_session`, which also ends it."""
    return _ClientDuplex(call)


def _is_end(frame: object) -> bool:
    return frame is grpc.aio.EOF


def _lost(error: grpc.aio.AioRpcError) -> OmniError:
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return PeerGone(error.code().name.lower())
    return error_from_rpc(error)
