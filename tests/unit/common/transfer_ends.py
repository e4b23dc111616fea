"""Both ends of an edge as the tests of transfers use them: values with tensors, blobs in pieces, what is released."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.unit.common.arena_refs import Pod, noise, octets

from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk
from omni_common.payload import PayloadCodec
from omni_common.request import RequestKey
from omni_common.rpc.contract import BLOB_PIECE, INLINE_LIMIT, POD_INLINE_LIMIT
from omni_common.rpc.frames import Blob
from omni_common.tensor import Tensor
from omni_common.transfer import Arrivals, Encoded, TensorReceiver, TensorSender, Way

LIMIT = 8 << 20
KEY = RequestKey("r", 1)


@dataclass(frozen=True)
class Pair:
    first: Tensor
    rest: tuple[Tensor, ...] = ()
    note: str = ""


CODEC = PayloadCodec([Pair])
SMALL = octets(noise(POD_INLINE_LIMIT, 1))
MIDDLE = octets(noise(INLINE_LIMIT, 4))
LARGE = octets(noise(INLINE_LIMIT + 1, 2))
HUGE = octets(noise(2 * BLOB_PIECE + 5, 3))


class Receiver(TensorReceiver):
    """Notes what is released."""

    def __init__(self, pod: Pod | None = None, limit: int = LIMIT, arrivals: Arrivals | None = None) -> None:
        self.returned: list[ArenaSlot] = []
        super().__init__(None if pod is None else pod.reader(), limit, self.returned.append, arrivals)


def encode(sender: TensorSender, value: object, way: Way = Way.STREAM, *, patient: bool = False) -> Encoded:
    return sender.encode(CODEC, value, "r", way, patient=patient)


def pieces_of(blob: Blob) -> list[BlobChunk]:
    pieces = [
        BlobChunk(blob=blob.id, request_id=blob.request_id, data=bytes(blob.data[start : start + BLOB_PIECE]))
        for start in range(0, blob.data.nbytes, BLOB_PIECE)
    ]
    pieces[0].total_length = blob.data.nbytes
    return pieces


def send(receiver: TensorReceiver, blobs: Iterable[Blob]) -> None:
    """All blobs at once, piece by piece in turn."""
    queues = [pieces_of(blob) for blob in blobs]
    while queues := [queue for queue in queues if queue]:
        for queue in queues:
            receiver.add(queue.pop(0))


def bytes_of(value: object) -> list[bytes]:
    assert isinstance(value, Pair)
    assert value.first.data.readonly
    return [bytes(tensor.data) for tensor in (value.first, *value.rest)]
