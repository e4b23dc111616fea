"""Media put together from pieces, within bounds."""

from __future__ import annotations

import pytest
import xxhash

from omni.common.v1 import tensor_pb2
from omni_common.errors import OmniError, Overloaded, Reason
from omni_coordinator.core.admission import MediaBudget
from omni_coordinator.media_inbox import MAX_BLOBS, MAX_REQUEST_MEDIA, MediaInbox


def piece(blob: int, data: bytes, *, total: int = 0, owner: str = "1") -> tensor_pb2.BlobChunk:
    return tensor_pb2.BlobChunk(blob=blob, request_id=owner, total_length=total, data=data)


def ref(blob: int, data: bytes) -> tensor_pb2.DataRef:
    return tensor_pb2.DataRef(blob=blob, length=len(data), checksum=xxhash.xxh3_64_intdigest(data))


def refused(inbox: MediaInbox, wanted: tensor_pb2.DataRef) -> Reason:
    with pytest.raises(OmniError) as refusal:
        inbox.take(wanted)
    return refusal.value.reason


@pytest.fixture
def budget() -> MediaBudget:
    return MediaBudget(100)


@pytest.fixture
def inbox(budget: MediaBudget) -> MediaInbox:
    return MediaInbox(budget)


def test_pieces_of_several_files_may_alternate(inbox: MediaInbox) -> None:
    inbox.add(piece(1, b"ab", total=4))
    inbox.add(piece(2, b"12", total=3))
    inbox.add(piece(1, b"cd"))
    inbox.add(piece(2, b"3"))
    assert bytes(inbox.take(ref(1, b"abcd"))) == b"abcd"
    assert bytes(inbox.take(ref(2, b"123"))) == b"123"


def test_the_budget_is_held_from_the_first_piece_until_the_file_is_dropped(
    inbox: MediaInbox, budget: MediaBudget
) -> None:
    inbox.add(piece(1, b"a", total=60))
    assert budget.held == 60
    inbox.drop("2")
    assert budget.held == 60
    inbox.drop("1")
    assert budget.held == 0


def test_a_file_that_was_taken_can_still_be_read_after_its_drop(inbox: MediaInbox) -> None:
    inbox.add(piece(1, b"abc", total=3))
    data = inbox.take(ref(1, b"abc"))
    inbox.drop("1")
    assert bytes(data) == b"abc"


def test_a_file_over_the_budget_is_refused_as_overload_and_its_pieces_are_not_kept(
    inbox: MediaInbox, budget: MediaBudget
) -> None:
    inbox.add(piece(1, b"abc", total=101))
    inbox.add(piece(1, b"def"))
    assert budget.held == 0
    assert refused(inbox, ref(1, b"abcdef")) is Reason.OVERLOADED


def test_files_over_the_bound_of_one_request_are_refused_whatever_the_budget() -> None:
    budget = MediaBudget(10 * MAX_REQUEST_MEDIA)
    inbox = MediaInbox(budget)
    inbox.add(piece(1, b"a", total=MAX_REQUEST_MEDIA))
    inbox.add(piece(2, b"b", total=1))
    inbox.add(piece(3, b"c", total=1, owner="2"))
    assert refused(inbox, ref(2, b"b")) is Reason.REQUEST_TOO_LARGE
    assert bytes(inbox.take(ref(3, b"c"))) == b"c"


def test_more_bytes_than_were_announced_are_refused_and_give_their_budget_back(
    inbox: MediaInbox, budget: MediaBudget
) -> None:
    inbox.add(piece(1, b"abcd", total=3))
    assert budget.held == 0
    assert refused(inbox, ref(1, b"abcd")) is Reason.INVALID_REQUEST


def test_a_file_that_is_not_complete_is_refused(inbox: MediaInbox) -> None:
    inbox.add(piece(1, b"ab", total=4))
    assert refused(inbox, ref(1, b"ab")) is Reason.INVALID_REQUEST


def test_a_file_that_nobody_sent_is_refused(inbox: MediaInbox) -> None:
    assert refused(inbox, ref(7, b"ab")) is Reason.INVALID_REQUEST


def test_a_file_whose_bytes_changed_is_never_handed_out(inbox: MediaInbox) -> None:
    inbox.add(piece(1, b"ab", total=2))
    assert refused(inbox, ref(1, b"ac")) is Reason.LEASE_LOST


def test_late_pieces_of_a_dropped_file_hold_nothing(inbox: MediaInbox, budget: MediaBudget) -> None:
    inbox.add(piece(1, b"ab", total=4))
    inbox.drop("1")
    inbox.add(piece(1, b"cd"))
    assert budget.held == 0
    assert refused(inbox, ref(1, b"abcd")) is Reason.INVALID_REQUEST


def test_closing_gives_all_of_the_budget_back(inbox: MediaInbox, budget: MediaBudget) -> None:
    inbox.add(piece(1, b"ab", total=4))
    inbox.add(piece(2, b"ab", total=4, owner="2"))
    inbox.close()
    assert budget.held == 0


def test_a_stream_cannot_pile_up_files_without_end() -> None:
    inbox = MediaInbox(MediaBudget(10 * MAX_BLOBS))
    for number in range(MAX_BLOBS):
        inbox.add(piece(number + 1, b"a", total=1, owner=str(number)))
    with pytest.raises(Overloaded):
        inbox.add(piece(MAX_BLOBS + 1, b"a", total=1))
