"""Tensors on their way between two stages: which way they take, and that they arrive whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.common.arena_refs import FOREVER, noise, octets

from omni.common.v1.payload_pb2 import Payload, Value
from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk
from omni_common.arena import ArenaReader, ArenaWriter
from omni_common.errors import Internal, LeaseLost, OmniError, Reason
from omni_common.payload import PayloadCodec
from omni_common.rpc.contract import BLOB_PIECE, INLINE_LIMIT
from omni_common.rpc.frames import Blob
from omni_common.tensor import Tensor
from omni_common.transfer import MAX_BLOBS, Encoded, TensorReceiver, TensorSender

LIMIT = 8 << 20


@dataclass(frozen=True)
class Pair:
    first: Tensor
    rest: tuple[Tensor, ...] = ()
    note: str = ""


CODEC = PayloadCodec([Pair])
SMALL = octets(noise(INLINE_LIMIT, 1))
LARGE = octets(noise(INLINE_LIMIT + 1, 2))
HUGE = octets(noise(2 * BLOB_PIECE + 5, 3))


class Receiver(TensorReceiver):
    """Notes what is released."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.returned: list[ArenaSlot] = []
        super().__init__(None if folder is None else ArenaReader(folder), limit, self.returned.append)


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[ArenaWriter]:
    with ArenaWriter(tmp_path, "thinker-0", 4 * INLINE_LIMIT) as made:
        yield made


def _encode(sender: TensorSender, value: object, *, same_pod: bool = False) -> Encoded:
    return sender.encode(CODEC, value, "r", same_pod=same_pod, expires=FOREVER)


def _pieces(blob: Blob) -> list[BlobChunk]:
    pieces = [
        BlobChunk(blob=blob.id, request_id=blob.request_id, data=bytes(blob.data[start : start + BLOB_PIECE]))
        for start in range(0, blob.data.nbytes, BLOB_PIECE)
    ]
    pieces[0].total_length = blob.data.nbytes
    return pieces


def _send(receiver: TensorReceiver, blobs: Iterable[Blob]) -> None:
    """All blobs at once, piece by piece in turn."""
    queues = [_pieces(blob) for blob in blobs]
    while queues := [queue for queue in queues if queue]:
        for queue in queues:
            receiver.add(queue.pop(0))


def _bytes_of(value: object) -> list[bytes]:
    assert isinstance(value, Pair)
    assert value.first.data.readonly
    return [bytes(tensor.data) for tensor in (value.first, *value.rest)]


def test_a_tensor_up_to_the_inline_limit_rides_in_the_payload(arena: ArenaWriter) -> None:
    encoded = _encode(TensorSender(arena), Pair(SMALL, (octets(b""),)), same_pod=True)
    assert (encoded.blobs, encoded.slots, arena.in_use) == ((), (), 0)
    assert _bytes_of(Receiver().decode(CODEC, encoded.payload)) == [bytes(SMALL.data), b""]


def test_a_larger_tensor_for_another_pod_is_a_blob_of_the_same_bytes_not_a_copy(arena: ArenaWriter) -> None:
    encoded = _encode(TensorSender(arena), Pair(LARGE))
    assert [blob.data.obj for blob in encoded.blobs] == [LARGE.data.obj]
    assert (encoded.slots, arena.in_use) == ((), 0)


def test_blobs_arrive_in_alternating_pieces() -> None:
    receiver = Receiver()
    encoded = _encode(TensorSender(None), Pair(HUGE, (LARGE, SMALL, HUGE)))
    _send(receiver, encoded.blobs)
    assert receiver.pending_bytes == 2 * HUGE.nbytes + LARGE.nbytes
    value = receiver.decode(CODEC, encoded.payload)
    assert _bytes_of(value) == [bytes(tensor.data) for tensor in (HUGE, LARGE, SMALL, HUGE)]
    assert receiver.pending_bytes == 0


@pytest.mark.parametrize("checksums", [True, False])
def test_in_one_pod_a_larger_tensor_goes_through_the_arena_and_its_slot_comes_back(
    tmp_path: Path, arena: ArenaWriter, checksums: bool
) -> None:
    sender, receiver = TensorSender(arena, arena_checksums=checksums), Receiver(tmp_path)
    encoded = _encode(sender, Pair(LARGE, (LARGE,)), same_pod=True)
    assert (encoded.blobs, len(encoded.slots), arena.leases) == ((), 2, 2)
    value = receiver.decode(CODEC, encoded.payload)
    assert _bytes_of(value) == [bytes(LARGE.data)] * 2
    assert receiver.returned == []
    del value
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2]
    sender.release(receiver.returned)
    assert arena.in_use == 0


def test_a_slot_that_comes_back_is_no_part_of_its_payload_which_it_would_keep_in_memory(
    tmp_path: Path, arena: ArenaWriter
) -> None:
    receiver = Receiver(tmp_path)
    payload = _encode(TensorSender(arena), Pair(LARGE), same_pod=True).payload
    receiver.decode(CODEC, payload)
    receiver.discard(payload)
    for slot in receiver.returned:
        slot.generation = 99
    assert (len(receiver.returned), payload.fields[0].tensor.arena.generation) == (2, 1)


def test_when_the_arena_is_full_the_rest_are_blobs(tmp_path: Path, arena: ArenaWriter) -> None:
    receiver = Receiver(tmp_path)
    encoded = _encode(TensorSender(arena), Pair(LARGE, (LARGE,) * 4), same_pod=True)
    assert (len(encoded.slots), len(encoded.blobs)) == (3, 2)
    _send(receiver, encoded.blobs)
    assert _bytes_of(receiver.decode(CODEC, encoded.payload)) == [bytes(LARGE.data)] * 5


def test_a_value_that_cannot_be_sent_holds_no_slot(arena: ArenaWriter) -> None:
    with pytest.raises(Internal):
        _encode(TensorSender(arena), Pair(LARGE, (LARGE,), note="\ud800"), same_pod=True)
    assert arena.in_use == 0


def test_blob_ids_are_never_used_again() -> None:
    sender = TensorSender(None)
    ids = [blob.id for _ in range(3) for blob in _encode(sender, Pair(LARGE, (LARGE,))).blobs]
    _, media = sender.media(b"x", "r")
    assert len({*ids, media.id}) == 7


def test_media_travel_as_blobs() -> None:
    sender, receiver = TensorSender(None), Receiver()
    ref, blob = sender.media(bytes(HUGE.data), "r")
    _send(receiver, [blob])
    assert bytes(receiver.media(ref)) == bytes(HUGE.data)
    with pytest.raises(LeaseLost):
        receiver.media(ref)


def test_bytes_that_changed_on_the_way_are_refused() -> None:
    receiver = Receiver()
    memory = bytearray(LARGE.data)
    encoded = _encode(TensorSender(None), Pair(Tensor(LARGE.dtype, LARGE.shape, memoryview(memory))))
    memory[1000] ^= 1
    _send(receiver, encoded.blobs)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.pending_bytes == 0


def test_a_blob_without_a_checksum_is_refused() -> None:
    receiver = Receiver()
    encoded = _encode(TensorSender(None), Pair(LARGE))
    encoded.payload.fields[0].tensor.checksum = 0
    _send(receiver, encoded.blobs)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)


def test_a_blob_of_which_pieces_are_missing_is_refused() -> None:
    receiver = Receiver()
    encoded = _encode(TensorSender(None), Pair(HUGE))
    for piece in _pieces(encoded.blobs[0])[:-1]:
        receiver.add(piece)
    with pytest.raises(LeaseLost, match="not all"):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.pending_bytes == 0


def test_an_arena_that_the_receiver_does_not_share_is_a_lost_lease(arena: ArenaWriter) -> None:
    receiver = Receiver()
    encoded = _encode(TensorSender(arena), Pair(LARGE), same_pod=True)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.returned == list(encoded.slots)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_payload_that_is_refused_gives_all_its_slots_and_blobs_back_once(
    tmp_path: Path, arena: ArenaWriter, broken: int
) -> None:
    receiver = Receiver(tmp_path)
    encoded = _encode(TensorSender(arena), Pair(LARGE, (LARGE, LARGE, LARGE)), same_pod=True)
    _send(receiver, encoded.blobs)
    value = encoded.payload.fields[0] if broken == 0 else encoded.payload.fields[1].list.values[broken - 1]
    value.tensor.checksum ^= 1
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2, 3]
    assert receiver.pending_bytes == 0


def test_what_a_payload_of_a_dropped_request_refers_to_goes_back_unread(tmp_path: Path, arena: ArenaWriter) -> None:
    receiver = Receiver(tmp_path)
    encoded = _encode(TensorSender(arena), Pair(LARGE, (LARGE, LARGE, HUGE)), same_pod=True)
    _send(receiver, encoded.blobs)
    strange = Value()
    strange.map.values["x"].payload.fields.add().CopyFrom(encoded.payload.fields[1])
    receiver.discard(Payload(type="unheard of", fields=[encoded.payload.fields[0], strange]))
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2, 3]
    assert receiver.pending_bytes == 0


def test_a_dropped_request_leaves_no_blob_and_its_later_pieces_are_ignored() -> None:
    receiver = Receiver()
    [mine] = _encode(TensorSender(None), Pair(HUGE)).blobs
    other = Blob(mine.id + 1, "other", HUGE.data)
    first, *later = _pieces(mine)
    receiver.add(first)
    receiver.add(_pieces(other)[0])
    receiver.drop("r")
    for piece in later:
        receiver.add(piece)
    assert receiver.pending_bytes == HUGE.nbytes


def _announce(number: int, total: int, data: bytes = b"x") -> BlobChunk:
    return BlobChunk(blob=number, request_id="r", total_length=total, data=data)


def test_a_blob_over_the_bound_is_refused_before_memory_is_claimed_and_its_pieces_are_ignored() -> None:
    receiver = Receiver()
    with pytest.raises(OmniError) as caught:
        receiver.add(_announce(1, 1 << 62))
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE
    receiver.add(BlobChunk(blob=1, request_id="r", data=b"more"))
    assert receiver.pending_bytes == 0


def test_blobs_beyond_the_room_that_is_left_are_refused_as_overload() -> None:
    receiver = Receiver(limit=100)
    receiver.add(_announce(1, 60))
    with pytest.raises(OmniError) as caught:
        receiver.add(_announce(2, 41))
    assert caught.value.reason is Reason.OVERLOADED
    receiver.add(_announce(3, 40))
    assert receiver.pending_bytes == 100
    receiver.drop("r")
    assert receiver.pending_bytes == 0


def test_blobs_are_bounded_in_number_too() -> None:
    receiver = Receiver()
    for number in range(MAX_BLOBS):
        receiver.add(_announce(number, 1))
    with pytest.raises(OmniError) as caught:
        receiver.add(_announce(MAX_BLOBS, 1))
    assert caught.value.reason is Reason.OVERLOADED


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(_announce(1, 10), id="announced twice"),
        pytest.param(BlobChunk(blob=1, request_id="r", data=bytes(10)), id="more bytes than announced"),
    ],
)
def test_a_blob_that_contradicts_itself_ends_its_request_and_holds_nothing(second: BlobChunk) -> None:
    receiver = Receiver()
    receiver.add(_announce(1, 10))
    with pytest.raises(Internal):
        receiver.add(second)
    assert receiver.pending_bytes == 0


def test_a_tensor_without_a_location_is_an_internal_error() -> None:
    payload = _encode(TensorSender(None), Pair(SMALL)).payload
    payload.fields[0].tensor.ClearField("inline")
    with pytest.raises(Internal):
        Receiver().decode(CODEC, payload)


def test_inline_bytes_of_another_length_are_refused() -> None:
    payload = _encode(TensorSender(None), Pair(SMALL)).payload
    payload.fields[0].tensor.inline = b"too short"
    with pytest.raises(LeaseLost):
        Receiver().decode(CODEC, payload)
