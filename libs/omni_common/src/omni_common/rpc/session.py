"""The life of one stream: both directions at work, and an end that does not leak.

async with client_session(stub.Attach()) as duplex:
    await exchange(duplex, writer, frame=lambda events: AttachRequest(events=events), handle=handle)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import grpc.aio
from google.protobuf.message import Message

from omni_common.errors import OmniError
from omni_common.rpc.duplex import Duplex, PeerGone, client_duplex
from omni_common.rpc.frames import FrameWriter

Read = TypeVar("Read", bound=Message)
Written = TypeVar("Written", bound=Message)
Event = TypeVar("Event", bound=Message)

LINGER = 2.0
"""Seconds that an ended stream may take to say so before it is cancelled after all."""


@asynccontextmanager
async def client_session(call: grpc.aio.StreamStreamCall[Written, Read]) -> AsyncIterator[Duplex[Read, Written]]:
    """A call's stream, ended on the way out: half-closed, read to its end, cancelled only if that takes too long."""
    duplex: Duplex[Read, Written] = client_duplex(call)
    try:
        yield duplex
    finally:
        if not call.done():
            with anyio.move_on_after(LINGER, shield=True):
                await _finish(duplex)
        if not call.done():
            call.cancel()


async def exchange(
    duplex: Duplex[Read, Written],
    writer: FrameWriter[Event],
    *,
    frame: Callable[[list[Event]], Written],
    handle: Callable[[Read], Awaitable[None]],
) -> None:
    """Writes what `writer` holds and handles every frame that arrives, until both directions have ended.

    Either side may begin the end: the peer by ending its direction, this side by `writer.close()`. What waits is
    still sent if it can be. Raises PeerGone by itself, never in a group; the writer is closed in any case.
    """
    lost: list[PeerGone] = []

    async def write() -> None:
        try:
            await writer.run(lambda events: duplex.write(frame(events)))
            await duplex.end()
        except PeerGone as error:
            lost.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        try:
            while (arrived := await duplex.read()) is not None:
                await handle(arrived)
        except PeerGone as error:
            lost.append(error)
            tasks.cancel_scope.cancel()
        writer.close()
    if lost:
        raise lost[0]


async def _finish(duplex: Duplex[Any, Any]) -> None:
    try:
        await duplex.end()
        while await duplex.read() is not None:
            pass
    except OmniError:
        return  # it is over, which is all that is wanted here
