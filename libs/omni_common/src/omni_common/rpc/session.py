"""The life of one stream: both directions at work, and an end that does not leak.

async with client_session(stub.Attach()) as duplex:
    await exchange(duplex, writer, frame=lambda events: AttachRequest(events=events), handle=handle)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import anyio
import grpc.aio
from google.protobuf.message import Message

from omni_common.errors import OmniError
from omni_common.rpc.duplex import Duplex, client_duplex
from omni_common.rpc.frames import FrameWriter
from omni_common.rpc.tls import MeshTls

Read = TypeVar("Read", bound=Message)
Written = TypeVar("Written", bound=Message)
Event = TypeVar("Event", bound=Message)

LINGER = 2.0
"""Seconds that an ended stream may take to say so before it is cancelled after all."""


@asynccontextmanager
async def client_session(
    call: grpc.aio.StreamStreamCall[Written, Read], *, tls: MeshTls | None = None, address: str = ""
) -> AsyncIterator[Duplex[Read, Written]]:
    """A call's stream, ended on the way out: half-closed, read to its end, cancelled only if that takes too long.
    `tls` hears how it ended with the peer at `address`."""
    duplex: Duplex[Read, Written] = client_duplex(call)
    try:
        yield duplex
    finally:
        with anyio.move_on_after(LINGER, shield=True), suppress(OmniError):  # that it is over is all that is wanted
            await duplex.end()
            while await duplex.read() is not None:
                pass
        if not call.done():
            call.cancel()
        elif tls is not None:
            tls.ended(address, await call.details() or "")  # which is there, since the call is done


async def exchange(
    duplex: Duplex[Read, Written],
    writer: FrameWriter[Event],
    *,
    frame: Callable[[list[Event]], Written],
    handle: Callable[[Read], None],
) -> None:
    """Writes what `writer` holds, as `frame` makes it, and handles every frame that arrives, until the stream ends.

    Either side begins the end: the peer by ending its direction, this side by `writer.close()`; what waits is still
    sent if it can be. An OmniError of the stream (PeerGone, or the peer's refusal) or of `handle` ends it at once
    and is raised by itself, never in a group. The writer is closed in any case.
    """
    lost: list[OmniError] = []

    async def write() -> None:
        try:
            await writer.run(lambda events: duplex.write(frame(events)))
            await duplex.end()
        except OmniError as error:
            lost.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        try:
            while (arrived := await duplex.read()) is not None:
                handle(arrived)
        except OmniError as error:
            lost.append(error)
            tasks.cancel_scope.cancel()
        writer.close()
    if lost:
        raise lost[0]
