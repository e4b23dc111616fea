"""Media on their way in: blobs of a gateway's stream, put together within bounds, until a submit takes them.

A blob that is refused stays known by its refusal, which the submit that refers to it gets; pieces of blobs that
nobody knows any more are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import xxhash

from omni.common.v1 import tensor_pb2
from omni_common.errors import InvalidRequest, OmniError, Overloaded, Reason
from omni_coordinator.core.admission import MediaBudget

MAX_REQUEST_MEDIA = 64 << 20
"""Bytes of media in one request: a minute of video as phones record it, and twice what one HTTP body may hold."""

MAX_BLOBS = 1024
"""Blobs of one stream that wait for their submit; each of them holds at least its entry here."""


@dataclass(slots=True)
class _Blob:
    owner: str
    data: bytearray = field(default_factory=bytearray)
    filled: int = 0
    refusal: OmniError | None = None


class MediaInbox:
    """The blobs of one stream. Their owner is what the sender wrote as request: on a gateway's stream, the ticket."""

    def __init__(self, budget: MediaBudget) -> None:
        self._budget = budget
        self._blobs: dict[int, _Blob] = {}

    def add(self, chunk: tensor_pb2.BlobChunk) -> None:
        """One piece. Raises OmniError only when the stream itself misbehaves."""
        blob = self._blobs.get(chunk.blob)
        if blob is None:
            if not chunk.total_length:
                return  # the rest of a blob whose request is gone
            blob = self._open(chunk)
        if blob.refusal is not None:
            return
        end = blob.filled + len(chunk.data)
        if end > len(blob.data):
            self._refuse(blob, InvalidRequest("A media file is longer than it was announced to be."))
            return
        blob.data[blob.filled : end] = chunk.data
        blob.filled = end

    def take(self, ref: tensor_pb2.DataRef) -> memoryview:
        """The bytes of a media file. Raises OmniError when they are not here as the reference says."""
        blob = self._blobs.get(ref.blob)
        if blob is None:
            raise InvalidRequest("A part of the request refers to media that were not sent.")
        if blob.refusal is not None:
            raise blob.refusal
        if blob.filled != len(blob.data) or ref.length != blob.filled:
            raise InvalidRequest("A media file did not arrive in full.")
        if xxhash.xxh3_64_intdigest(blob.data) != ref.checksum:
            raise OmniError(Reason.LEASE_LOST, "A media file changed on its way.")
        return memoryview(blob.data).toreadonly()

    def drop(self, owner: str) -> None:
        """Forgets the blobs of one request; views that were taken stay valid."""
        for number in [number for number, blob in self._blobs.items() if blob.owner == owner]:
            self._forget(self._blobs.pop(number))

    def close(self) -> None:
        for blob in self._blobs.values():
            self._forget(blob)
        self._blobs.clear()

    def _open(self, chunk: tensor_pb2.BlobChunk) -> _Blob:
        if len(self._blobs) >= MAX_BLOBS:
            raise Overloaded(f"{MAX_BLOBS} media files wait for their requests on one stream.")
        blob = _Blob(chunk.request_id)
        held = sum(len(other.data) for other in self._blobs.values() if other.owner == blob.owner)
        self._blobs[chunk.blob] = blob
        if held + chunk.total_length > MAX_REQUEST_MEDIA:
            limit = f"{MAX_REQUEST_MEDIA >> 20} MiB"
            blob.refusal = OmniError(Reason.REQUEST_TOO_LARGE, f"The media of a request may have {limit} at most.")
        elif not self._budget.try_take(chunk.total_length):
            blob.refusal = Overloaded("The coordinator holds as many bytes of media as it may.")
        else:
            blob.data = bytearray(chunk.total_length)
        return blob

    def _refuse(self, blob: _Blob, refusal: OmniError) -> None:
        self._forget(blob)
        blob.refusal = refusal

    def _forget(self, blob: _Blob) -> None:
        self._budget.give_back(len(blob.data))
        blob.data = bytearray()
