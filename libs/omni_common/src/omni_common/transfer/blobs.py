"""Tensors and media files that come in pieces, on one stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni.common.v1.tensor_pb2 import BlobChunk
from omni_common.errors import Internal, OmniError, Overloaded, Reason

# Blobs of one stream that may be incomplete or unread at a time: what one of them costs beside its bytes is small, but
# not nothing.
MAX_BLOBS = 4096


@dataclass(slots=True)
class Incoming:
    """A blob. `checksum` is 0 where the reference to it has one."""

    request_id: str
    data: bytearray
    checksum: int
    received: int = field(default=0)

    @property
    def complete(self) -> bool:
        return self.received == len(self.data)


class Blobs:
    """The blobs of one stream that are incomplete or unread. `max_bytes` bounds them; what is over it is refused
    before memory is claimed, and its later pieces are ignored."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blobs: dict[int, Incoming] = {}
        self._passed: dict[str, int] = {}
        self._pending = 0

    @property
    def pending_bytes(self) -> int:
        """What they claim."""
        return self._pending

    def add(self, chunk: BlobChunk) -> bool:
        """Takes one piece; says whether it was its blob's last. Raises OmniError, which ends the chunk's request, when
        it is over a bound or contradicts the pieces before it. The caller passes on no piece of a request that it has
        dropped."""
        blob = self._blobs.get(chunk.blob)
        if blob is None:
            if not chunk.total_length or chunk.blob <= self._passed.get(chunk.request_id, -1):
                return False  # a later piece of a blob that was refused or dropped, or what has come another way
            blob = self._expect(chunk)
        elif chunk.total_length:
            self.take(chunk.blob)
            raise Internal("A blob was announced twice.")
        data = chunk.data
        end = blob.received + len(data)
        if end > len(blob.data):
            self.take(chunk.blob)
            raise Internal("A blob came with more bytes than were announced.")
        blob.data[blob.received : end] = data
        blob.received = end
        return blob.complete

    def has(self, number: int) -> bool:
        """Whether all of it is here."""
        blob = self._blobs.get(number)
        return blob is not None and blob.complete

    def take(self, number: int) -> Incoming | None:
        """The blob, which is the caller's now, complete or not."""
        blob = self._blobs.pop(number, None)
        if blob is not None:
            self._pending -= len(blob.data)
        return blob

    def pass_over(self, number: int, request_id: str) -> None:
        """The transfer of that number is settled. Pieces of a blob in its place come no more, or too late: a request's
        transfers are settled in the order of their numbers."""
        self._passed[request_id] = max(number, self._passed.get(request_id, 0))

    def drop(self, request_id: str) -> None:
        """Forgets the blobs of a request."""
        self._passed.pop(request_id, None)
        for number in [number for number, blob in self._blobs.items() if blob.request_id == request_id]:
            self.take(number)

    def _expect(self, chunk: BlobChunk) -> Incoming:
        if chunk.total_length > self._max_bytes:
            raise OmniError(
                Reason.REQUEST_TOO_LARGE,
                f"A tensor or media file of {chunk.total_length} bytes is over the limit of {self._max_bytes}.",
            )
        if self._pending + chunk.total_length > self._max_bytes or len(self._blobs) >= MAX_BLOBS:
            raise Overloaded("A stage holds too many bytes that wait to be read.")
        blob = self._blobs[chunk.blob] = Incoming(chunk.request_id, bytearray(chunk.total_length), chunk.checksum)
        self._pending += chunk.total_length
        return blob
