"""Tensors that the relays bring from another pod: before or after their events, once, twice, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash
from tests.unit.common.arena_refs import Pod
from tests.unit.common.transfer_ends import (
    CODEC,
    HUGE,
    KEY,
    LARGE,
    LIMIT,
    SMALL,
    Pair,
    Receiver,
    bytes_of,
    encode,
    pieces_of,
)

from omni.common.v1.request_pb2 import RequestKey as KeyMessage
from omni.common.v1.tensor_pb2 import ArenaSlot, BlobChunk, TransferId
from omni.relay.v1 import pod_pb2
from omni_common.arena import Arena
from omni_common.arena.layout import EXTENTS
from omni_common.errors import LeaseLost
from omni_common.relay import Slots
from omni_common.request import RequestKey
from omni_common.rpc.frames import Blob
from omni_common.telemetry.names import Transport
from omni_common.tensor import Tensor
from omni_common.testing.clock import ManualClock
from omni_common.transfer import Arrivals, Pushed, TensorSender, Way
from omni_common.transfer.arrivals import KEEP

SOURCE = 0xFEED


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
    pieces = pieces_of(Blob(pushed.number, KEY.lane, data.data))
    pieces[0].checksum = xxhash.xxh3_64_intdigest(data.data)
    return pieces


def test_a_tensor_for_another_pod_leaves_a_reference_and_a_push(sender: TensorSender) -> None:
    encoded = encode(sender, Pair(LARGE, (LARGE, SMALL)), Way.RELAYS)
    assert (encoded.blobs, encoded.lent) == ((), ())
    assert [sent.transport for sent in encoded.sent] == [Transport.INLINE]
    assert [(push.number, push.length) for push in encoded.pushes] == [(1, LARGE.nbytes), (2, LARGE.nbytes)]
    ref = encoded.payload.fields[0].tensor
    assert (ref.transfer.source, ref.transfer.number, ref.checksum) == (SOURCE, 1, 0)


def test_what_has_arrived_is_viewed_and_goes_back_to_where_it_came_from(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = encode(sender, Pair(LARGE), Way.RELAYS)
    assert receiver.missing(encoded.payload) == [(SOURCE, 1)]
    slot = elsewhere.bring(encoded.pushes[0])
    assert receiver.missing(encoded.payload) == []
    value = receiver.decode(CODEC, encoded.payload, KEY)
    assert bytes_of(value) == [bytes(LARGE.data)]
    assert elsewhere.returned == []
    del value
    assert (elsewhere.returned, receiver.returned) == ([slot], [])


def test_who_waits_for_a_transfer_is_called_when_it_has_arrived(sender: TensorSender, elsewhere: Elsewhere) -> None:
    pushes = encode(sender, Pair(LARGE, (LARGE,)), Way.RELAYS).pushes
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
    encoded = encode(sender, Pair(HUGE, (LARGE,)), Way.RELAYS)
    first, second = encoded.pushes
    assert [receiver.add(piece) for piece in _blob_instead(first, HUGE)] == [False, False, True]
    assert receiver.missing(encoded.payload) == [(SOURCE, second.number)]
    elsewhere.bring(second)
    assert bytes_of(receiver.decode(CODEC, encoded.payload, KEY)) == [bytes(HUGE.data), bytes(LARGE.data)]
    assert receiver.pending_bytes == 0


def test_a_blob_in_place_of_a_push_is_checked_too(here: LargePod, sender: TensorSender, elsewhere: Elsewhere) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = encode(sender, Pair(LARGE), Way.RELAYS)
    [piece] = _blob_instead(encoded.pushes[0])
    receiver.add(BlobChunk(blob=piece.blob, request_id="r", total_length=LARGE.nbytes, data=piece.data))
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload, KEY)


def test_what_comes_a_second_time_by_the_other_way_is_not_kept(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    first, second = (encode(sender, Pair(LARGE), Way.RELAYS) for _ in range(2))
    receiver.add(_blob_instead(first.pushes[0])[0])
    elsewhere.bring(second.pushes[0])
    values = [receiver.decode(CODEC, encoded.payload, KEY) for encoded in (first, second)]
    late = elsewhere.bring(first.pushes[0])
    assert elsewhere.returned == [late]
    assert not receiver.add(_blob_instead(second.pushes[0])[0])
    assert (receiver.pending_bytes, len(elsewhere.arrivals)) == (0, 0)
    assert [bytes_of(value) for value in values] == [[bytes(LARGE.data)]] * 2


def test_half_a_blob_is_forgotten_when_its_tensor_arrives_after_all(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = encode(sender, Pair(LARGE), Way.RELAYS)
    receiver.add(BlobChunk(blob=encoded.pushes[0].number, request_id="r", total_length=LARGE.nbytes, data=b"x"))
    elsewhere.bring(encoded.pushes[0])
    assert bytes_of(receiver.decode(CODEC, encoded.payload, KEY)) == [bytes(LARGE.data)]
    assert receiver.pending_bytes == 0


def test_what_arrives_with_another_length_is_refused_and_goes_back_once(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = encode(sender, Pair(LARGE, (LARGE,)), Way.RELAYS)
    slots = [elsewhere.bring(encoded.pushes[0], length=LARGE.nbytes - 1), elsewhere.bring(encoded.pushes[1])]
    with pytest.raises(LeaseLost):
        receiver.decode(CODEC, encoded.payload, KEY)
    assert elsewhere.returned == slots


def test_what_arrives_for_a_request_that_is_over_goes_back_at_once(sender: TensorSender, elsewhere: Elsewhere) -> None:
    elsewhere.over.add(KEY)
    slot = elsewhere.bring(encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    assert elsewhere.returned == [slot]


def test_the_end_of_a_request_gives_back_what_arrived_for_it(sender: TensorSender, elsewhere: Elsewhere) -> None:
    slot = elsewhere.bring(encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    elsewhere.arrivals.drop(RequestKey("another"))
    assert elsewhere.returned == []
    elsewhere.arrivals.drop(KEY)
    assert (elsewhere.returned, len(elsewhere.arrivals)) == ([slot], 0)


def test_a_payload_that_is_not_read_gives_back_what_arrived_for_it(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    receiver = Receiver(here, arrivals=elsewhere.arrivals)
    encoded = encode(sender, Pair(LARGE, (LARGE,)), Way.RELAYS)
    slot = elsewhere.bring(encoded.pushes[0])
    receiver.add(BlobChunk(blob=encoded.pushes[1].number, request_id="r", total_length=LARGE.nbytes, data=b"x"))
    receiver.discard(encoded.payload)
    assert (elsewhere.returned, receiver.pending_bytes) == ([slot], 0)


def test_what_arrives_before_its_request_is_kept_for_a_while(sender: TensorSender, elsewhere: Elsewhere) -> None:
    elsewhere.known.clear()
    slot = elsewhere.bring(encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    elsewhere.clock.advance(KEEP)
    elsewhere.arrivals.sweep()
    assert elsewhere.returned == []
    elsewhere.clock.advance(1)
    elsewhere.arrivals.sweep()
    assert elsewhere.returned == [slot]


def test_what_arrives_for_a_living_request_waits_as_long_as_it_lives(
    sender: TensorSender, elsewhere: Elsewhere
) -> None:
    elsewhere.bring(encode(sender, Pair(LARGE), Way.RELAYS).pushes[0])
    elsewhere.clock.advance(2 * KEEP)
    elsewhere.arrivals.sweep()
    assert len(elsewhere.arrivals) == 1


def test_an_arrival_that_is_told_twice_is_one(sender: TensorSender, elsewhere: Elsewhere) -> None:
    push = encode(sender, Pair(LARGE), Way.RELAYS).pushes[0]
    elsewhere.bring(push)
    elsewhere.bring(push)
    assert (len(elsewhere.arrivals), elsewhere.returned) == (1, [])


def test_a_transfer_that_has_not_come_is_a_lost_lease(
    here: LargePod, sender: TensorSender, elsewhere: Elsewhere
) -> None:
    encoded = encode(sender, Pair(LARGE), Way.RELAYS)
    for receiver in (Receiver(here, arrivals=elsewhere.arrivals), Receiver()):
        with pytest.raises(LeaseLost):
            receiver.decode(CODEC, encoded.payload, KEY)
