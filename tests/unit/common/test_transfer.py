"""Tensors on their way between two stages: which way they take, and that they arrive whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.common.arena_refs import EXTENT, Pod, octets
from tests.unit.common.transfer_ends import (
    CODEC,
    HUGE,
    LARGE,
    MIDDLE,
    SMALL,
    Pair,
    Receiver,
    bytes_of,
    encode,
    pieces_of,
    send,
)

from omni.common.v1.payload_pb2 import Payload, Value
from omni.common.v1.tensor_pb2 import BlobChunk
from omni_common.arena.layout import slot_size
from omni_common.errors import Internal, LeaseLost, OmniError, Reason
from omni_common.relay import NoRoom, Slots
from omni_common.rpc.frames import Blob
from omni_common.telemetry.names import Transport
from omni_common.tensor import Tensor
from omni_common.transfer import MAX_BLOBS, Sent, TensorSender, Way, Why

SOURCE = 0xFEED


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture
def slots(pod: Pod) -> Slots:
    """Room for three large tensors."""
    return Slots(pod.arena, pod.writer(pod.grant(size=4 * EXTENT)))


def test_a_tensor_up_to_the_inline_limit_rides_in_the_payload(slots: Slots) -> None:
    encoded = encode(TensorSender(slots), Pair(SMALL, (octets(b""),)), Way.POD)
    assert (encoded.blobs, encoded.lent, encoded.pushes, slots.in_use) == ((), (), (), 0)
    assert encoded.sent == (Sent(Transport.INLINE, SMALL.nbytes), Sent(Transport.INLINE, 0))
    assert bytes_of(Receiver().decode(CODEC, encoded.payload)) == [bytes(SMALL.data), b""]


def test_a_tensor_for_the_same_pod_leaves_the_payload_earlier(slots: Slots) -> None:
    sender = TensorSender(slots)
    ways = {way: encode(sender, Pair(MIDDLE), way).sent[0].transport for way in Way}
    assert ways == {Way.STREAM: Transport.INLINE, Way.POD: Transport.ARENA, Way.RELAYS: Transport.INLINE}


def test_without_an_inline_limit_only_empty_tensors_ride_in_the_payload(slots: Slots) -> None:
    sender = TensorSender(slots, inline_limit=0)
    encoded = encode(sender, Pair(octets(b"x"), (octets(b""),)), Way.POD)
    assert [sent.transport for sent in encoded.sent] == [Transport.ARENA, Transport.INLINE]


def test_a_larger_tensor_is_a_blob_of_the_same_bytes_where_there_is_no_relay(slots: Slots) -> None:
    encoded = encode(TensorSender(slots), Pair(LARGE))
    assert [blob.data.obj for blob in encoded.blobs] == [LARGE.data.obj]
    assert (encoded.sent, slots.in_use) == ((Sent(Transport.GRPC, LARGE.nbytes, Why.NO_RELAY),), 0)


def test_blobs_arrive_in_alternating_pieces() -> None:
    receiver = Receiver()
    encoded = encode(TensorSender(None), Pair(HUGE, (LARGE, SMALL, HUGE)))
    send(receiver, encoded.blobs)
    assert receiver.pending_bytes == 2 * HUGE.nbytes + LARGE.nbytes
    value = receiver.decode(CODEC, encoded.payload)
    assert bytes_of(value) == [bytes(tensor.data) for tensor in (HUGE, LARGE, SMALL, HUGE)]
    assert receiver.pending_bytes == 0


@pytest.mark.parametrize("checksums", [True, False])
def test_in_one_pod_a_larger_tensor_goes_through_the_arena_and_its_slot_comes_back(
    pod: Pod, slots: Slots, checksums: bool
) -> None:
    sender, receiver = TensorSender(slots, arena_checksums=checksums), Receiver(pod)
    encoded = encode(sender, Pair(LARGE, (LARGE,)), Way.POD)
    assert (encoded.blobs, encoded.pushes, len(encoded.lent), slots.leases) == ((), (), 2, 2)
    assert encoded.sent == (Sent(Transport.ARENA, LARGE.nbytes, Why.SAME_POD),) * 2
    assert (encoded.payload.fields[0].tensor.checksum != 0) is checksums
    value = receiver.decode(CODEC, encoded.payload)
    assert bytes_of(value) == [bytes(LARGE.data)] * 2
    assert receiver.returned == []
    del value
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2]
    for slot in receiver.returned:
        assert slots.release(slot)
    assert slots.in_use == 0


def test_a_slot_that_comes_back_is_no_part_of_its_payload_which_it_would_keep_in_memory(pod: Pod, slots: Slots) -> None:
    receiver = Receiver(pod)
    payload = encode(TensorSender(slots), Pair(LARGE), Way.POD).payload
    receiver.decode(CODEC, payload)
    receiver.discard(payload)
    for slot in receiver.returned:
        slot.generation = 99
    assert (len(receiver.returned), payload.fields[0].tensor.arena.generation) == (2, 1)


def test_a_payload_for_which_there_is_no_room_holds_nothing_while_it_waits(slots: Slots) -> None:
    with pytest.raises(NoRoom) as caught:
        encode(TensorSender(slots), Pair(LARGE, (LARGE,) * 3), Way.POD, patient=True)
    assert (caught.value.size, slots.in_use) == (slot_size(LARGE.nbytes), 0)


def test_what_no_longer_waits_for_room_goes_as_blobs(pod: Pod, slots: Slots) -> None:
    receiver = Receiver(pod)
    encoded = encode(TensorSender(slots), Pair(LARGE, (LARGE,) * 4), Way.POD)
    assert (len(encoded.lent), len(encoded.blobs)) == (3, 2)
    assert encoded.sent[-1] == Sent(Transport.GRPC, LARGE.nbytes, Why.FALLBACK)
    send(receiver, encoded.blobs)
    assert bytes_of(receiver.decode(CODEC, encoded.payload)) == [bytes(LARGE.data)] * 5


def test_a_tensor_for_which_there_can_never_be_room_does_not_wait(slots: Slots) -> None:
    slots.refuse(slot_size(LARGE.nbytes))
    encoded = encode(TensorSender(slots), Pair(LARGE), Way.RELAYS, patient=True)
    assert encoded.sent == (Sent(Transport.GRPC, LARGE.nbytes, Why.TOO_LARGE),)


@pytest.mark.parametrize("way", [Way.POD, Way.RELAYS])
def test_a_value_that_cannot_be_sent_holds_no_slot(slots: Slots, way: Way) -> None:
    with pytest.raises(Internal):
        encode(TensorSender(slots), Pair(LARGE, (LARGE,), note="\ud800"), way)
    assert slots.in_use == 0


@pytest.mark.parametrize("way", [Way.POD, Way.RELAYS])
def test_a_payload_that_is_never_sent_gives_its_slots_back(slots: Slots, way: Way) -> None:
    sender = TensorSender(slots)
    encoded = encode(sender, Pair(LARGE, (LARGE,)), way)
    assert slots.leases == 2
    sender.release(encoded)
    assert slots.in_use == 0


def test_a_tensor_that_was_made_in_the_arena_is_lent_to_all_who_get_it_without_a_copy(pod: Pod, slots: Slots) -> None:
    data = slots.allocate(LARGE.nbytes)
    assert data is not None
    data[:] = LARGE.data
    sender, receiver = TensorSender(slots, SOURCE), Receiver(pod)
    made = octets(data)
    there = [encode(sender, Pair(made), Way.POD) for _ in range(2)]
    push = encode(sender, Pair(made), Way.RELAYS).pushes[0]
    assert slots.leases == 1
    assert [bytes_of(receiver.decode(CODEC, encoded.payload)) for encoded in there] == [[bytes(LARGE.data)]] * 2
    assert bytes(slots.data(push.slot, push.length) or b"") == bytes(LARGE.data)
    for slot in (*receiver.returned, push.slot):
        assert slots.release(slot)
    assert slots.leases == 1
    del data, made
    assert slots.leases == 0


def test_a_part_of_a_tensor_in_the_arena_is_copied_as_any_other_memory(slots: Slots) -> None:
    data = slots.allocate(2 * LARGE.nbytes)
    assert data is not None
    encode(TensorSender(slots), Pair(octets(data[: LARGE.nbytes])), Way.POD)
    assert slots.leases == 2


def test_blob_ids_are_never_used_again() -> None:
    sender = TensorSender(None)
    ids = [blob.id for _ in range(3) for blob in encode(sender, Pair(LARGE, (LARGE,))).blobs]
    _, media = sender.media(b"x", "r")
    assert len({*ids, media.id}) == 7


def test_media_travel_as_blobs() -> None:
    sender, receiver = TensorSender(None), Receiver()
    ref, blob = sender.media(bytes(HUGE.data), "r")
    send(receiver, [blob])
    assert bytes(receiver.media(ref)) == bytes(HUGE.data)
    with pytest.raises(LeaseLost):
        receiver.media(ref)


def test_bytes_that_changed_on_the_way_are_refused() -> None:
    receiver = Receiver()
    memory = bytearray(LARGE.data)
    encoded = encode(TensorSender(None), Pair(Tensor(LARGE.dtype, LARGE.shape, memoryview(memory))))
    memory[1000] ^= 1
    send(receiver, encoded.blobs)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.pending_bytes == 0


def test_a_blob_without_a_checksum_is_refused() -> None:
    receiver = Receiver()
    encoded = encode(TensorSender(None), Pair(LARGE))
    encoded.payload.fields[0].tensor.checksum = 0
    send(receiver, encoded.blobs)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)


def test_a_blob_of_which_pieces_are_missing_is_refused() -> None:
    receiver = Receiver()
    encoded = encode(TensorSender(None), Pair(HUGE))
    for piece in pieces_of(encoded.blobs[0])[:-1]:
        receiver.add(piece)
    with pytest.raises(LeaseLost, match="not all"):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.pending_bytes == 0


def test_an_arena_that_the_receiver_does_not_share_is_a_lost_lease(slots: Slots) -> None:
    receiver = Receiver()
    encoded = encode(TensorSender(slots), Pair(LARGE), Way.POD)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.returned == list(encoded.lent)


@pytest.mark.parametrize("broken", [0, 1, 2, 3, 4])
def test_a_payload_that_is_refused_gives_all_its_slots_and_blobs_back_once(pod: Pod, slots: Slots, broken: int) -> None:
    receiver = Receiver(pod)
    encoded = encode(TensorSender(slots, arena_checksums=True), Pair(LARGE, (LARGE,) * 4), Way.POD)
    send(receiver, encoded.blobs)
    value = encoded.payload.fields[0] if broken == 0 else encoded.payload.fields[1].list.values[broken - 1]
    value.tensor.checksum ^= 1
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2, 3]
    assert receiver.pending_bytes == 0


def test_a_slot_that_a_refused_payload_names_twice_comes_back_twice(pod: Pod, slots: Slots) -> None:
    data = slots.allocate(LARGE.nbytes)
    assert data is not None
    receiver, made = Receiver(pod), octets(data)
    encoded = encode(TensorSender(slots), Pair(made, (made, LARGE)), Way.POD)
    encoded.payload.fields[1].list.values[0].tensor.length += 1
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert [slots.release(slot) for slot in receiver.returned] == [True] * 3


def test_what_a_payload_of_a_dropped_request_refers_to_goes_back_unread(pod: Pod, slots: Slots) -> None:
    receiver = Receiver(pod)
    encoded = encode(TensorSender(slots), Pair(LARGE, (LARGE, LARGE, HUGE)), Way.POD)
    send(receiver, encoded.blobs)
    strange = Value()
    strange.map.values["x"].payload.fields.add().CopyFrom(encoded.payload.fields[1])
    receiver.discard(Payload(type="unheard of", fields=[encoded.payload.fields[0], strange]))
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2, 3]
    assert receiver.pending_bytes == 0


def test_a_dropped_request_leaves_no_blob_and_its_later_pieces_are_ignored() -> None:
    receiver = Receiver()
    [mine] = encode(TensorSender(None), Pair(HUGE)).blobs
    other = Blob(mine.id + 1, "other", HUGE.data)
    first, *later = pieces_of(mine)
    receiver.add(first)
    receiver.add(pieces_of(other)[0])
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
    payload = encode(TensorSender(None), Pair(SMALL)).payload
    payload.fields[0].tensor.ClearField("inline")
    with pytest.raises(Internal):
        Receiver().decode(CODEC, payload)


def test_inline_bytes_of_another_length_are_refused() -> None:
    payload = encode(TensorSender(None), Pair(SMALL)).payload
    payload.fields[0].tensor.inline = b"too short"
    with pytest.raises(LeaseLost):
        Receiver().decode(CODEC, payload)
