"""How tensors travel with payloads: inside them, through the pod's arena, or as blobs of the same stream.

The sender chooses per tensor: up to INLINE_LIMIT inside the payload; else, for a peer in the same pod, a slot in the
arena while it has room; else a blob. The receiver needs no say in it. Bytes are copied once at most on the way out
(into the payload or the arena; a blob's are read when they are sent) and never on the way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from omni.common.v1.payload_pb2 import Payload, Value
from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk, DataRef, DataType
from omni_common.arena import ArenaReader, ArenaWriter
from omni_common.arena.reader import Released
from omni_common.data_ref import checksum, describe, tensor_from
from omni_common.errors import Internal, LeaseLost, OmniError, Overloaded, Reason
from omni_common.payload import PayloadCodec
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.rpc.frames import Blob
from omni_common.telemetry import names
from omni_common.tensor import Tensor

# Blobs of one stream that may be incomplete or unread at a time: what one of them costs beside its bytes is small, but
# not nothing.
MAX_BLOBS = 4096


Transport = Literal["inline", "arena", "blob"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload on its way out. `blobs` leave before it; `slots` are its leases in the arena; `sizes` are the bytes of
    each of its tensors, by how it travels."""

    payload: Payload
    blobs: tuple[Blob, ...]
    slots: tuple[ArenaSlot, ...]
    sizes: tuple[tuple[Transport, int], ...]


class TensorSender:
    """Turns values into payloads for one process's peers. Blob ids are unique among all of them.

    A tensor's memory must not change until its blob is sent; a change makes the receiver refuse it, never use it.
    `arena_checksums` off saves one pass over the bytes where the arena's own checks are enough.
    """

    def __init__(self, arena: ArenaWriter | None, *, arena_checksums: bool = True) -> None:
        self._arena = arena
        self._arena_checksums = arena_checksums
        self._blob_ids = count(1)

    def encode(self, codec: PayloadCodec, value: object, request_id: str, *, same_pod: bool, expires: float) -> Encoded:
        """Raises Internal when the value is not what its type declares; it then holds no slot. `expires` ends the
        leases in the arena: the request's deadline on the arena's clock."""
        blobs: list[Blob] = []
        slots: list[ArenaSlot] = []
        sizes: list[tuple[Transport, int]] = []

        def put(tensor: Tensor) -> DataRef:
            ref = describe(tensor)
            if tensor.nbytes <= INLINE_LIMIT:
                ref.inline = bytes(tensor.data)
                sizes.append(("inline", tensor.nbytes))
            elif same_pod and (slot := self._lease(tensor, request_id, expires)) is not None:
                slots.append(slot)
                ref.arena.CopyFrom(slot)
                ref.checksum = checksum(tensor.data) if self._arena_checksums else 0
                sizes.append(("arena", tensor.nbytes))
            else:
                blobs.append(self._blob(ref, tensor.data, request_id))
                sizes.append(("blob", tensor.nbytes))
            return ref

        try:
            return Encoded(codec.encode(value, put), tuple(blobs), tuple(slots), tuple(sizes))
        except OmniError:
            self.release(slots)
            raise

    def media(self, data: bytes | memoryview, request_id: str) -> tuple[DataRef, Blob]:
        """A media file as a blob."""
        ref = DataRef(data_type=DataType.DATA_TYPE_UINT8, shape=[len(data)], length=len(data))
        return ref, self._blob(ref, memoryview(data), request_id)

    def release(self, slots: Iterable[ArenaSlot]) -> None:
        """Frees the slots of a payload that was never sent, or that its receiver released."""
        if self._arena is not None:
            for slot in slots:
                self._arena.release(slot)

    def _lease(self, tensor: Tensor, request_id: str, expires: float) -> ArenaSlot | None:
        if self._arena is None:
            return None
        slot = self._arena.put(tensor, request_id, expires)
        if slot is None:
            names.ARENA_FULL.inc()
        return slot

    def _blob(self, ref: DataRef, data: memoryview, request_id: str) -> Blob:
        blob = Blob(next(self._blob_ids), request_id, data)
        ref.blob = blob.id
        ref.checksum = checksum(data)
        return blob


@dataclass(slots=True)
class _Incoming:
    request_id: str
    data: bytearray
    received: int = field(default=0)

    @property
    def complete(self) -> bool:
        return self.received == len(self.data)


class TensorReceiver:
    """The receiving end of one stream: collects its blobs and turns its payloads into values.

    `max_bytes` bounds the blobs that are incomplete or unread; what is over it is refused before memory is claimed,
    and its later pieces are ignored. `released` gets every arena slot that came, exactly once per reference: when its
    last view is gone, or at once where its payload was refused or discarded (see `arena.reader.Released`).
    """

    def __init__(self, reader: ArenaReader | None, max_bytes: int, released: Released) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._released = released
        self._blobs: dict[int, _Incoming] = {}
        self._pending = 0

    @property
    def pending_bytes(self) -> int:
        """What the blobs that are incomplete or unread claim."""
        return self._pending

    def add(self, chunk: BlobChunk) -> None:
        """Takes one piece. Raises OmniError, which ends the chunk's request, when it is over a bound or contradicts
        the pieces before it. The caller passes on no piece of a request that it has dropped."""
        blob = self._blobs.get(chunk.blob)
        if blob is None:
            if not chunk.total_length:
                return  # a later piece of a blob that was refused or dropped
            blob = self._expect(chunk)
        elif chunk.total_length:
            self._forget(chunk.blob)
            raise Internal("A blob was announced twice.")
        data = chunk.data
        end = blob.received + len(data)
        if end > len(blob.data):
            self._forget(chunk.blob)
            raise Internal("A blob came with more bytes than were announced.")
        blob.data[blob.received : end] = data
        blob.received = end

    def decode(self, codec: PayloadCodec, payload: Payload) -> object:
        """The value of a payload, whose blobs it uses up.

        Raises LeaseLost when a tensor is not what was sent, and Internal when the payload fits no declared type;
        what it refers to is given back then.
        """
        lent: set[tuple[str, int]] = set()

        def get(ref: DataRef) -> Tensor:
            tensor = self._tensor(ref)
            lent.add((ref.arena.segment, ref.arena.generation))
            return tensor

        try:
            return codec.decode(payload, get)
        except OmniError:
            # Views that were lent are released when the half-made value dies; what nobody looked at ends here.
            unseen = (r for r in _refs_in(payload) if (r.arena.segment, r.arena.generation) not in lent)
            self._give_up(unseen)
            raise

    def discard(self, payload: Payload) -> None:
        """Gives back what a payload refers to, unread: its request is over."""
        self._give_up(_refs_in(payload))

    def media(self, ref: DataRef) -> memoryview:
        """The bytes of a media file that came as a blob."""
        return self._take(ref).data

    def drop(self, request_id: str) -> None:
        """Forgets the blobs of a request."""
        for blob_id in [number for number, blob in self._blobs.items() if blob.request_id == request_id]:
            self._forget(blob_id)

    def _expect(self, chunk: BlobChunk) -> _Incoming:
        if chunk.total_length > self._max_bytes:
            raise OmniError(
                Reason.REQUEST_TOO_LARGE,
                f"A tensor or media file of {chunk.total_length} bytes is over the limit of {self._max_bytes}.",
            )
        if self._pending + chunk.total_length > self._max_bytes or len(self._blobs) >= MAX_BLOBS:
            raise Overloaded("A stage holds too many bytes that wait to be read.")
        blob = self._blobs[chunk.blob] = _Incoming(chunk.request_id, bytearray(chunk.total_length))
        self._pending += chunk.total_length
        return blob

    def _forget(self, blob_id: int) -> _Incoming | None:
        blob = self._blobs.pop(blob_id, None)
        if blob is not None:
            self._pending -= len(blob.data)
        return blob

    def _tensor(self, ref: DataRef) -> Tensor:
        match ref.WhichOneof("location"):
            case "inline":
                return tensor_from(ref, memoryview(ref.inline))
            case "arena" if self._reader is not None:
                return self._reader.view(ref, self._released)
            case "arena":
                raise LeaseLost("it came through an arena that this process does not share")
            case "blob":
                return self._take(ref)
        raise Internal("A tensor came without its bytes.")

    def _take(self, ref: DataRef) -> Tensor:
        blob = self._forget(ref.blob)
        if blob is None or not blob.complete:
            raise LeaseLost("not all of its bytes have come")
        tensor = tensor_from(ref, memoryview(blob.data).toreadonly())
        if checksum(tensor.data) != ref.checksum:
            raise LeaseLost("its bytes are not those that were sent")
        return tensor

    def _give_up(self, refs: Iterable[DataRef]) -> None:
        for ref in refs:
            match ref.WhichOneof("location"):
                case "arena":
                    slot = ArenaSlot()
                    slot.CopyFrom(ref.arena)
                    self._released(slot)
                case "blob":
                    self._forget(ref.blob)


def _refs_in(payload: Payload) -> Iterator[DataRef]:
    for value in payload.fields:
        yield from _refs_in_value(value)


def _refs_in_value(value: Value) -> Iterator[DataRef]:
    match value.WhichOneof("kind"):
        case "tensor":
            yield value.tensor
        case "payload":
            yield from _refs_in(value.payload)
        case "list":
            for item in value.list.values:
                yield from _refs_in_value(item)
        case "map":
            for item in value.map.values.values():
                yield from _refs_in_value(item)
