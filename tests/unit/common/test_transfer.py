"""Tensors on their way between two stages: which way they take, and that they arrive whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash
from tests.unit.common.arena_refs import EXTENT, Pod, noise, octets

from omni.common.v1.payload_pb2 import Payload, Value
from omni.common.v1.request_pb2 import RequestKey as KeyMessage
from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena import Arena
from omni_common.arena.layout import EXTENTS, slot_size
from omni_common.errors import Internal, LeaseLost, OmniError, Reason
from omni_common.payload import PayloadCodec
from omni_common.relay import NoRoom, Slots
from omni_common.request import RequestKey
from omni_common.rpc.contract import BLOB_PIECE, INLINE_LIMIT
from omni_common.rpc.frames import Blob
from omni_common.telemetry.names import Transport
from omni_common.tensor import Tensor
from omni_common.testing.clock import ManualClock
from omni_common.transfer import (
    MAX_BLOBS,
    Arrivals,
    Encoded,
    Pushed,
    Sent,
    TensorReceiver,
    TensorSender,
    Way,
    Why,
)
from omni_common.transfer.arrivals import KEEP

LIMIT = 8 << 20
KEY = RequestKey("r", 1)
SOURCE = 0xFEED


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

    def __init__(self, pod: Pod | None = None, limit: int = LIMIT, arrivals: Arrivals | None = None) -> None:
        self.returned: list[ArenaSlot] = []
        super().__init__(None if pod is None else pod.reader(), limit, self.returned.append, arrivals)


class LargePod(Pod):
    """Room for everything."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.arena = Arena.create(folder, EXTENTS + LIMIT)

    def slots(self) -> Slots:
        return Slots(self.arena, self.writer(self.grant(size=LIMIT)))


class Elsewhere:
    """What arrives from another pod: `arrivals`, and what was given back of it."""

    def __init__(self, pod: LargePod) -> None:
        self.returned: list[ArenaSlot] = []
        self.known: set[RequestKey] = {KEY}
        self.over: set[RequestKey] = set()
        self.clock = ManualClock()
        self.arrivals = Arrivals(
            self.returned.append, is_over=self.over.__contains__, is_known=self.known.__contains__, clock=self.clock
        )
        self._slots = pod.slots()

    def bring(self, pushed: Pushed, data: Tensor = LARGE, *, length: int | None = None) -> ArenaSlot:
        """As the relay does: the bytes are in a slot of this pod, and the stage is told."""
        slot, memory = self._slots.reserve(data.nbytes, float("inf"))
        memory[:] = data.data
        self.arrivals.add(
            pod_pb2.Arrived(
                transfer=TransferId(source=SOURCE, number=pushed.number),
                slot=slot,
                length=data.nbytes if length is None else length,
                key=KeyMessage(request_id=KEY.request_id, attempt=KEY.attempt),
            )
        )
        return slot


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture
def slots(pod: Pod) -> Slots:
    """Room for three large tensors."""
    return Slots(pod.arena, pod.writer(pod.grant(size=4 * EXTENT)))


def _encode(sender: TensorSender, value: object, way: Way = Way.STREAM, *, patient: bool = False) -> Encoded:
    return sender.encode(CODEC, value, "r", way, patient=patient)


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


def test_a_tensor_up_to_the_inline_limit_rides_in_the_payload(slots: Slots) -> None:
    encoded = _encode(TensorSender(slots), Pair(SMALL, (octets(b""),)), Way.POD)
    assert (encoded.blobs, encoded.lent, encoded.pushes, slots.in_use) == ((), (), (), 0)
    assert encoded.sent == (Sent(Transport.INLINE, SMALL.nbytes), Sent(Transport.INLINE, 0))
    assert _bytes_of(Receiver().decode(CODEC, encoded.payload)) == [bytes(SMALL.data), b""]


def test_without_an_inline_limit_only_empty_tensors_ride_in_the_payload(slots: Slots) -> None:
    sender = TensorSender(slots, inline_limit=0)
    encoded = _encode(sender, Pair(octets(b"x"), (octets(b""),)), Way.POD)
    assert [sent.transport for sent in encoded.sent] == [Transport.ARENA, Transport.INLINE]


def test_a_larger_tensor_is_a_blob_of_the_same_bytes_where_there_is_no_relay(slots: Slots) -> None:
    encoded = _encode(TensorSender(slots), Pair(LARGE))
    assert [blob.data.obj for blob in encoded.blobs] == [LARGE.data.obj]
    assert (encoded.sent, slots.in_use) == ((Sent(Transport.GRPC, LARGE.nbytes, Why.NO_RELAY),), 0)


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
    pod: Pod, slots: Slots, checksums: bool
) -> None:
    sender, receiver = TensorSender(slots, arena_checksums=checksums), Receiver(pod)
    encoded = _encode(sender, Pair(LARGE, (LARGE,)), Way.POD)
    assert (encoded.blobs, encoded.pushes, len(encoded.lent), slots.leases) == ((), (), 2, 2)
    assert encoded.sent == (Sent(Transport.ARENA, LARGE.nbytes, Why.SAME_POD),) * 2
    assert (encoded.payload.fields[0].tensor.checksum != 0) is checksums
    value = receiver.decode(CODEC, encoded.payload)
    assert _bytes_of(value) == [bytes(LARGE.data)] * 2
    assert receiver.returned == []
    del value
    assert sorted(slot.generation for slot in receiver.returned) == [1, 2]
    for slot in receiver.returned:
        assert slots.release(slot)
    assert slots.in_use == 0


def test_a_slot_that_comes_back_is_no_part_of_its_payload_which_it_would_keep_in_memory(pod: Pod, slots: Slots) -> None:
    receiver = Receiver(pod)
    payload = _encode(TensorSender(slots), Pair(LARGE), Way.POD).payload
    receiver.decode(CODEC, payload)
    receiver.discard(payload)
    for slot in receiver.returned:
        slot.generation = 99
    assert (len(receiver.returned), payload.fields[0].tensor.arena.generation) == (2, 1)


def test_a_payload_for_which_there_is_no_room_holds_nothing_while_it_waits(slots: Slots) -> None:
    with pytest.raises(NoRoom) as caught:
        _encode(TensorSender(slots), Pair(LARGE, (LARGE,) * 3), Way.POD, patient=True)
    assert (caught.value.size, slots.in_use) == (slot_size(LARGE.nbytes), 0)


def test_what_no_longer_waits_for_room_goes_as_blobs(pod: Pod, slots: Slots) -> None:
    receiver = Receiver(pod)
    encoded = _encode(TensorSender(slots), Pair(LARGE, (LARGE,) * 4), Way.POD)
    assert (len(encoded.lent), len(encoded.blobs)) == (3, 2)
    assert encoded.sent[-1] == Sent(Transport.GRPC, LARGE.nbytes, Why.FALLBACK)
    _send(receiver, encoded.blobs)
    assert _bytes_of(receiver.decode(CODEC, encoded.payload)) == [bytes(LARGE.data)] * 5


def test_a_tensor_for_which_there_can_never_be_room_does_not_wait(slots: Slots) -> None:
    slots.refuse(slot_size(LARGE.nbytes))
    encoded = _encode(TensorSender(slots), Pair(LARGE), Way.RELAYS, patient=True)
    assert encoded.sent == (Sent(Transport.GRPC, LARGE.nbytes, Why.TOO_LARGE),)


@pytest.mark.parametrize("way", [Way.POD, Way.RELAYS])
def test_a_value_that_cannot_be_sent_holds_no_slot(slots: Slots, way: Way) -> None:
    with pytest.raises(Internal):
        _encode(TensorSender(slots), Pair(LARGE, (LARGE,), note="\ud800"), way)
    assert slots.in_use == 0


@pytest.mark.parametrize("way", [Way.POD, Way.RELAYS])
def test_a_payload_that_is_never_sent_gives_its_slots_back(slots: Slots, way: Way) -> None:
    sender = TensorSender(slots)
    encoded = _encode(sender, Pair(LARGE, (LARGE,)), way)
    assert slots.leases == 2
    sender.release(encoded)
    assert slots.in_use == 0


def test_a_tensor_that_was_made_in_the_arena_is_lent_to_all_who_get_it_without_a_copy(pod: Pod, slots: Slots) -> None:
    data = slots.allocate(LARGE.nbytes)
    assert data is not None
    data[:] = LARGE.data
    sender, receiver = TensorSender(slots, SOURCE), Receiver(pod)
    made = octets(data)
    there = [_encode(sender, Pair(made), Way.POD) for _ in range(2)]
    push = _encode(sender, Pair(made), Way.RELAYS).pushes[0]
    assert slots.leases == 1
    assert [_bytes_of(receiver.decode(CODEC, encoded.payload)) for encoded in there] == [[bytes(LARGE.data)]] * 2
    assert bytes(slots.data(push.slot, push.length) or b"") == bytes(LARGE.data)
    for slot in (*receiver.returned, push.slot):
        assert slots.release(slot)
    assert slots.leases == 1
    del data, made
    assert slots.leases == 0


def test_a_part_of_a_tensor_in_the_arena_is_copied_as_any_other_memory(slots: Slots) -> None:
    data = slots.allocate(2 * LARGE.nbytes)
    assert data is not None
    _encode(TensorSender(slots), Pair(octets(data[: LARGE.nbytes])), Way.POD)
    assert slots.leases == 2


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


def test_an_arena_that_the_receiver_does_not_share_is_a_lost_lease(slots: Slots) -> None:
    receiver = Receiver()
    encoded = _encode(TensorSender(slots), Pair(LARGE), Way.POD)
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert receiver.returned == list(encoded.lent)


@pytest.mark.parametrize("broken", [0, 1, 2, 3, 4])
def test_a_payload_that_is_refused_gives_all_its_slots_and_blobs_back_once(pod: Pod, slots: Slots, broken: int) -> None:
    receiver = Receiver(pod)
    encoded = _encode(TensorSender(slots, arena_checksums=True), Pair(LARGE, (LARGE,) * 4), Way.POD)
    _send(receiver, encoded.blobs)
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
    encoded = _encode(TensorSender(slots), Pair(made, (made, LARGE)), Way.POD)
    encoded.payload.fields[1].list.values[0].tensor.length += 1
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload)
    assert [slots.release(slot) for slot in receiver.returned] == [True] * 3


def test_what_a_payload_of_a_dropped_request_refers_to_goes_back_unread(pod: Pod, slots: Slots) -> None:
    receiver = Receiver(pod)
    encoded = _encode(TensorSender(slots), Pair(LARGE, (LARGE, LARGE, HUGE)), Way.POD)
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


# From another pod.


@pytest.fixture
def here(tmp_path: Path) -> LargePod:
    (tmp_path / "here").mkdir()
    return LargePod(tmp_path / "here")


@pytest.fixture
def elsewhere(here: LargePod) -> Elsewhere:
    return Elsewhere(here)


@pytest.fixture
def sender(tmp_path: Path) -> TensorSender:
    (tmp_path / "there").mkdir()
    return TensorSender(LargePod(tmp_path / "there").slots(), SOURCE)


def _blob_instead(pushed: Pushed, data: Tensor = LARGE) -> list[BlobChunk]:
    """As the sender sends it when a push has failed."""
    pieces = _pieces(Blob(pushed.number, KEY.request_id, data.data))
    pieces[0].checksum = xxhash.xxh3_64_intdigest(data.data)
    return pieces


def test_a_tensor_for_another_pod_leaves_a_reference_and_a_push(sender: TensorSender) -> None:
    encoded = _encode(sender, Pair(LARGE, (LARGE, SMALL)), Way.RELAYS)
    assert (encoded.blobs, encoded.lent) == ((), ())
    assert [sent.transport for sent in encoded.sent] == [Transport.INLINE]
    assert [(push.number, push.length) for push in encoded.pushes] == [(1, LARGE.nbytes), (2, LARGE.nbytes)]
    ref = encoded.payload.fields[0].tensor
    assert (ref.transfer.source, ref.transfer.number, ref.checksum) == (SOURCE, 1, 0)


def test_what_has_arrived_is_viewed_and_goes_back_to_where_it_came_from(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = _encode(sender, Pair(LARGE), Way.RELAYS)
    assert receiver.missing(encoded.payload) == [(SOURCE, 1)]
    slot = elsewhere.bring(encoded.pushes[0])
    assert receiver.missing(encoded.payload) == []
    value = receiver.decode(CODEC, encoded.payload, KEY)
    assert _bytes_of(value) == [bytes(LARGE.data)]
    assert elsewhere.returned == []
    del value
    assert (elsewhere.returned, receiver.returned) == ([slot], [])


def test_who_waits_for_a_transfer_is_called_when_it_has_arrived(sender: TensorSender, elsewhere: Elsewhere) -> None:
    pushes = _encode(sender, Pair(LARGE, (LARGE,)), Way.RELAYS).pushes
    called: list[RequestKey] = []
    for push in pushes:
        elsewhere.arrivals.expect((SOURCE, push.number), KEY, called.append)
    elsewhere.bring(pushes[1])
    assert called == [KEY]
    elsewhere.arrivals.drop(KEY)
    elsewhere.bring(pushes[0])
    assert called == [KEY]


def test_a_blob_takes_the_place_of_a_push_that_failed(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = _encode(sender, Pair(HUGE, (LARGE,)), Way.RELAYS)
    first, second = encoded.pushes
    assert [receiver.add(piece) for piece in _blob_instead(first, HUGE)] == [False, False, True]
    assert receiver.missing(encoded.payload) == [(SOURCE, second.number)]
    elsewhere.bring(second)
    assert _bytes_of(receiver.decode(CODEC, encoded.payload, KEY)) == [bytes(HUGE.data), bytes(LARGE.data)]
    assert receiver.pending_bytes == 0


def test_a_blob_in_place_of_a_push_is_checked_too(here: LargePod, sender: TensorSender, elsewhere: Elsewhere) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = _encode(sender, Pair(LARGE), Way.RELAYS)
    [piece] = _blob_instead(encoded.pushes[0])
    receiver.add(BlobChunk(blob=piece.blob, request_id="r", total_length=LARGE.nbytes, data=piece.data))
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload, KEY)


def test_what_comes_a_second_time_by_the_other_way_is_not_kept(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    first, second = (_encode(sender, Pair(LARGE), Way.RELAYS) for _ in range(2))
    receiver.add(_blob_instead(first.pushes[0])[0])
    elsewhere.bring(second.pushes[0])
    values = [receiver.decode(CODEC, encoded.payload, KEY) for encoded in (first, second)]
    late = elsewhere.bring(first.pushes[0])
    assert elsewhere.returned == [late]
    assert not receiver.add(_blob_instead(second.pushes[0])[0])
    assert (receiver.pending_bytes, len(elsewhere.arrivals)) == (0, 0)
    assert [_bytes_of(value) for value in values] == [[bytes(LARGE.data)]] * 2


def test_half_a_blob_is_forgotten_when_its_tensor_arrives_after_all(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = _encode(sender, Pair(LARGE), Way.RELAYS)
    receiver.add(BlobChunk(blob=encoded.pushes[0].number, request_id="r", total_length=LARGE.nbytes, data=b"x"))
    elsewhere.bring(encoded.pushes[0])
    assert _bytes_of(receiver.decode(CODEC, encoded.payload, KEY)) == [bytes(LARGE.data)]
    assert receiver.pending_bytes == 0


def test_what_arrives_with_another_length_is_refused_and_goes_back_once(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = _encode(sender, Pair(LARGE, (LARGE,)), Way.RELAYS)
    slots = [elsewhere.bring(encoded.pushes[0], length=LARGE.nbytes - 1), elsewhere.bring(encoded.pushes[1])]
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload, KEY)
    assert elsewhere.returned == slots


def test_what_arrives_for_a_request_that_is_over_goes_back_at_once(sender: TensorSender, elsewhere: Elsewhere) -> None:
    elsewhere.over.add(KEY)
    slot = elsewhere.bring(_encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    assert elsewhere.returned == [slot]


def test_the_end_of_a_request_gives_back_what_arrived_for_it(sender: TensorSender, elsewhere: Elsewhere) -> None:
    slot = elsewhere.bring(_encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    elsewhere.arrivals.drop(RequestKey("another"))
    assert elsewhere.returned == []
    elsewhere.arrivals.drop(KEY)
    assert (elsewhere.returned, len(elsewhere.arrivals)) == ([slot], 0)


def test_a_payload_that_is_not_read_gives_back_what_arrived_for_it(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = _encode(sender, Pair(LARGE, (LARGE,)), Way.RELAYS)
    slot = elsewhere.bring(encoded.pushes[0])
    receiver.add(BlobChunk(blob=encoded.pushes[1].number, request_id="r", total_length=LARGE.nbytes, data=b"x"))
    receiver.discard(encoded.payload)
    assert (elsewhere.returned, receiver.pending_bytes) == ([slot], 0)


def test_what_arrives_before_its_request_is_kept_for_a_while(sender: TensorSender, elsewhere: Elsewhere) -> None:
    elsewhere.known.clear()
    slot = elsewhere.bring(_encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    elsewhere.clock.advance(KEEP)
    elsewhere.arrivals.sweep()
    assert elsewhere.returned == []
    elsewhere.clock.advance(1)
    elsewhere.arrivals.sweep()
    assert elsewhere.returned == [slot]


def test_what_arrives_for_a_living_request_waits_as_long_as_it_lives(
    sender: TensorSender, elsewhere: Elsewhere
) -> None:
    elsewhere.bring(_encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    elsewhere.clock.advance(2 * KEEP)
    elsewhere.arrivals.sweep()
    assert len(elsewhere.arrivals) == 1


def test_an_arrival_that_is_told_twice_is_one(sender: TensorSender, elsewhere: Elsewhere) -> None:
    push = _encode(sender, Pair(LARGE), Way.RELAYS).pushes[0]
    elsewhere.bring(push)
    elsewhere.bring(push)
    assert (len(elsewhere.arrivals), elsewhere.returned) == (1, [])


def test_a_transfer_that_has_not_come_is_a_lost_lease(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    encoded = _encode(sender, Pair(LARGE), Way.RELAYS)
    for receiver in (Receiver(here, arrivals=elsewhere.arrivals), Receiver()):
        with pytest.raises(LeaseLost):
            receiver.decode(CODEC, encoded.payload, KEY)
