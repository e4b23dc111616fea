"""Frames: everything that is ready for one peer leaves as one message, fairly among requests.

Rules of `FrameWriter`:

* Events of one lane (a request) leave in the order they were put. A blob leaves before the event it was put with.
* A frame takes small events up to 1 MiB, going round the lanes, and at most one piece (1 MiB) of one blob: a large
  tensor delays other requests' events by one frame, not by its own length. Pieces of different lanes alternate.
* What waits is bounded in events and in bytes. Above the bound `put` raises and nothing is queued.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from omni.common.v1 import tensor_pb2
from omni_common.errors import OmniError, Reason
from omni_common.rpc.bell import Bell
from omni_common.rpc.contract import BLOB_PIECE, MAX_EVENT
from omni_common.rpc.duplex import PeerGone

Event = TypeVar("Event", bound=Message)

_OVERHEAD = 6  # tag and length of a repeated message below 4 GiB


class PeerStalled(OmniError):
    """A peer is connected but does not take what it is sent."""

    def __init__(self, waiting: int) -> None:
        super().__init__(Reason.STAGE_UNAVAILABLE, f"A peer in the mesh has stalled: {waiting} events wait for it.")


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """Bytes that travel in pieces. `on_sent` is called once, when they are no longer read: sent or given up.
    `checksum` is for a blob whose reference has none."""

    id: int
    request_id: str
    data: memoryview
    on_sent: Callable[[], None] | None = None
    checksum: int = 0


@dataclass(slots=True, eq=False)
class _Small(Generic[Event]):
    event: Event
    size: int


@dataclass(slots=True, eq=False)
class _Large:
    blob: Blob
    sent: int = 0

    @property
    def left(self) -> int:
        return self.blob.data.nbytes - self.sent

    def next_piece(self) -> tensor_pb2.BlobChunk:
        data = self.blob.data[self.sent : self.sent + BLOB_PIECE]
        piece = tensor_pb2.BlobChunk(blob=self.blob.id, request_id=self.blob.request_id, data=bytes(data))
        if self.sent == 0:
            piece.total_length = self.blob.data.nbytes
            piece.checksum = self.blob.checksum
        self.sent += data.nbytes
        return piece

    def release(self) -> None:
        if self.blob.on_sent is not None:
            self.blob.on_sent()


class _Frame(Generic[Event]):
    """A frame in the making."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.sent: list[_Large] = []
        self.room = BLOB_PIECE
        self._has_piece = False

    def fits(self, item: _Small[Event] | _Large) -> bool:
        if isinstance(item, _Large):
            return not self._has_piece and self.room > 0
        return item.size <= self.room or not self.events

    def add(self, item: _Small[Event]) -> None:
        self.events.append(item.event)
        self.room -= item.size

    def add_piece(self, event: Event) -> None:
        self.events.append(event)
        self._has_piece = True


class FrameWriter(Generic[Event]):
    """The way out to one peer. All its methods belong to the thread of the event loop it was made on."""

    def __init__(
        self,
        make_blob_event: Callable[[tensor_pb2.BlobChunk], Event] | None = None,
        *,
        max_events: int = 16_384,
        max_bytes: int = 256 << 20,
    ) -> None:
        """`make_blob_event` wraps a piece; without it the stream has no blobs. The default bounds hold one event a
        token for hundreds of requests, and one image's features for each of a dozen."""
        self._make_blob_event = make_blob_event
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._lanes: OrderedDict[str, deque[_Small[Event] | _Large]] = OrderedDict()
        self._events = 0
        self._bytes = 0
        self._closed = False
        self._ready = Bell()
        self._thread = threading.get_ident()

    @property
    def waiting(self) -> tuple[int, int]:
        """How many events and bytes wait."""
        return self._events, self._bytes

    def put(self, event: Event, *, lane: str = "", blobs: Sequence[Blob] = ()) -> None:
        """Queues the event behind its blobs. Never waits.

        Raises PeerStalled when too much waits, PeerGone when the writer is closed, and REQUEST_TOO_LARGE for what
        could never be sent.
        """
        size = event.ByteSize() + _OVERHEAD
        self._put(lane, blobs, _Small(event, size))
        self._events += 1

    def put_blob(self, blob: Blob, *, lane: str) -> None:
        """Queues a blob whose event has left before it; raises as `put` does, and `on_sent` is not called then."""
        self._put(lane, (blob,), None)

    def drop(self, lane: str) -> Sequence[Event]:
        """Forgets what waits in a lane, since its request is over: the events that will not leave."""
        self._check_thread()
        dropped = self._lanes.pop(lane, ())
        for item in dropped:
            self._forget(item)
        return [item.event for item in dropped if isinstance(item, _Small)]

    def close(self) -> None:
        """Nothing more is put; `run` returns when what waits is sent. Idempotent."""
        self._check_thread()
        self._closed = True
        self._ready.ring()

    async def run(self, write: Callable[[list[Event]], Awaitable[None]]) -> None:
        """Writes frames until closed. However it ends, what still waits is given up and the writer is closed."""
        try:
            while await self._something_waits():
                frame = self._next_frame()
                try:
                    await write(frame.events)
                finally:
                    for blob in frame.sent:
                        blob.release()
        finally:
            self.close()
            for lane in list(self._lanes):
                self.drop(lane)

    async def _something_waits(self) -> bool:
        while not self._lanes:
            if self._closed:
                return False
            await self._ready.wait()  # no deadline: it waits for this process's own work, and `close` ends it
        return True

    def _next_frame(self) -> _Frame[Event]:
        frame: _Frame[Event] = _Frame()
        for lane in list(self._lanes):
            took = self._fill(frame, self._lanes[lane])
            if not self._lanes[lane]:
                del self._lanes[lane]
            elif took:
                self._lanes.move_to_end(lane)  # the others come first next time
            if frame.room <= 0:
                break
        return frame

    def _fill(self, frame: _Frame[Event], items: deque[_Small[Event] | _Large]) -> bool:
        took = False
        while items and frame.fits(items[0]):
            took = True
            item = items[0]
            if isinstance(item, _Large):
                piece = item.next_piece()
                self._bytes -= len(piece.data)
                frame.add_piece(self._wrap(piece))
                if item.left:
                    break
                frame.sent.append(item)
            else:
                self._forget(item)
                frame.add(item)
            items.popleft()
        return took

    def _wrap(self, piece: tensor_pb2.BlobChunk) -> Event:
        assert self._make_blob_event is not None  # noqa: S101  # `put` took no blob without it
        return self._make_blob_event(piece)

    def _forget(self, item: _Small[Event] | _Large) -> None:
        if isinstance(item, _Large):
            self._bytes -= item.left
            item.release()
        else:
            self._bytes -= item.size
            self._events -= 1

    def _put(self, lane: str, blobs: Sequence[Blob], small: _Small[Event] | None) -> None:
        self._check_thread()
        if blobs and self._make_blob_event is None:
            raise ValueError("this stream carries no blobs")
        size = 0 if small is None else small.size
        total = size + sum(blob.data.nbytes for blob in blobs)
        self._check_room(size, total)
        items = self._lanes.setdefault(lane, deque())
        items.extend(_Large(blob) for blob in blobs)
        if small is not None:
            items.append(small)
        self._bytes += total
        self._ready.ring()

    def _check_room(self, size: int, total: int) -> None:
        if self._closed:
            raise PeerGone("the stream is closed")
        if size > MAX_EVENT or total > self._max_bytes:
            raise OmniError(
                Reason.REQUEST_TOO_LARGE,
                f"The request needs {total} bytes sent at once inside the mesh, which is over its limit.",
            )
        if self._events >= self._max_events or self._bytes + total > self._max_bytes:
            raise PeerStalled(self._events)

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("a FrameWriter is used only on the thread of its event loop")
