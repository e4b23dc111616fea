"""What leaves a stage: by which way its tensors go, in which order, and what becomes of both when something fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import xxhash
from prometheus_client import REGISTRY
from tests.unit.common.arena_refs import octets
from tests.unit.stage.downstream import BYTES, LARGE, POD, SMALL, TARGET, Parcel, Way, way_out

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni.stage.v1 import stage_pb2
from omni_common.errors import Cancelled, DataCorrupted, DeadlineExceeded, LeaseLost, OmniError, Overloaded, Reason
from omni_common.request import RequestKey

pytestmark = pytest.mark.anyio

FIRST, SECOND = RequestKey("first"), RequestKey("second")


def ref_of(event: stage_pb2.DeliverEvent) -> DataRef:
    sent = event.chunk if event.HasField("chunk") else event.payload
    return sent.payload.fields[0].tensor


async def send_one(way: Way) -> DataRef:
    """One large chunk of the first request."""
    way.links.chunk(way.envelope("first"), TARGET, 0, LARGE)
    return ref_of(await way.replica.next())


# Within the pod.


async def test_in_one_pod_a_slot_is_lent_until_the_replica_returns_it(tmp_path: Path) -> None:
    async with way_out(tmp_path, pod=POD) as way:
        await way.grant(0)
        ref = await send_one(way)
        assert bytes(way.client.view(ref, lambda _: None).data) == BYTES
        assert not way.links.busy(FIRST)
        assert way.client.slots.leases == 1
        way.replica.release(ref.arena)
        await way.until_free()


async def test_what_was_not_lent_is_not_taken_back(tmp_path: Path) -> None:
    async with way_out(tmp_path, pod=POD) as way:
        await way.grant(0)
        ref = await send_one(way)
        strange = ArenaSlot()
        strange.CopyFrom(ref.arena)
        strange.generation += 1
        way.replica.release(strange)
        way.replica.credit(FIRST)
        await way.heard.granted.next()
        assert way.client.slots.leases == 1


async def test_an_abort_ends_what_was_lent_and_a_late_return_changes_nothing(tmp_path: Path) -> None:
    async with way_out(tmp_path, pod=POD) as way:
        await way.grant(0)
        ref = await send_one(way)
        way.links.chunk(way.envelope("second"), TARGET, 0, LARGE)
        await way.replica.next()
        way.links.abandon(FIRST)
        with anyio.fail_after(10):
            while way.client.slots.leases > 1:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        way.replica.release(ref.arena)
        way.replica.credit(FIRST)
        await way.heard.granted.next()
        assert way.client.slots.leases == 1


async def test_a_replica_that_leaves_returns_nothing_and_holds_nothing(tmp_path: Path) -> None:
    async with way_out(tmp_path, pod=POD) as way:
        await way.grant(0)
        await send_one(way)
        way.replica.leave()
        key, error = await way.heard.failed.next()
        assert (key, error.reason) == (FIRST, Reason.STAGE_UNAVAILABLE)
        await way.until_free()


# Without room.


async def test_who_finds_no_room_waits_with_all_that_follows_while_others_go_on(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        first, second = way.envelope("first"), way.envelope("second")
        way.links.chunk(first, TARGET, 0, LARGE)
        way.links.chunk(first, TARGET, 1, SMALL)
        way.links.done(first, TARGET, 2, ())
        way.links.chunk(second, TARGET, 0, SMALL)
        assert (await way.replica.next()).key.request_id == "second"
        assert way.links.busy(FIRST)
        assert not way.links.busy(SECOND)
        await way.grant(0)
        events = [await way.replica.next() for _ in range(3)]
        assert [event.WhichOneof("event") for event in events] == ["chunk", "chunk", "done"]
        assert [event.chunk.index for event in events[:2]] == [0, 1]
        assert [event.HasField("envelope") for event in events] == [True, False, False]


async def test_room_goes_to_who_has_waited_longest(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        for name in ("first", "second"):
            way.links.chunk(way.envelope(name), TARGET, 0, Parcel(octets(bytes(50_000))))
        await way.grant(0)
        assert (await way.replica.next()).key.request_id == "first"
        assert way.links.busy(SECOND)
        way.end_push((await way.pushed()).transfer.number)
        assert (await way.replica.next()).key.request_id == "second"


async def test_who_has_waited_too_long_takes_another_way(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        way.links.chunk(way.envelope("first"), TARGET, 0, LARGE)
        way.links.done(way.envelope("first"), TARGET, 1, ())
        assert (await way.replica.next()).blob.total_length == len(BYTES)
        assert ref_of(await way.replica.next()).HasField("blob")
        assert (await way.replica.next()).HasField("done")
        assert await way.heard.over.next() == (FIRST, None)


async def test_what_waits_for_room_ends_with_its_request(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        way.links.chunk(way.envelope("first"), TARGET, 0, LARGE)
        way.links.abandon(FIRST)
        assert not way.links.busy(FIRST)
        await way.grant(0)
        way.links.chunk(way.envelope("second"), TARGET, 0, SMALL)
        assert (await way.replica.next()).key.request_id == "second"


async def test_an_abort_of_one_attempt_leaves_what_waits_of_the_next(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        first = way.envelope("first")
        way.links.chunk(first, TARGET, 0, SMALL)
        way.links.chunk(replace(first, key=RequestKey("first", 1)), TARGET, 0, SMALL)
        way.links.abandon(FIRST)
        assert (await way.replica.next()).key.attempt == 1


async def test_what_waits_for_room_and_then_cannot_be_sent_is_lost(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        way.links.chunk(way.envelope("first"), TARGET, 0, LARGE)
        way.links.chunk(way.envelope("first"), TARGET, 1, "no parcel")
        await way.grant(0)
        await way.replica.next()
        key, error = await way.heard.over.next()
        assert error is not None
        assert (key, error.reason) == (FIRST, Reason.INTERNAL)


async def test_what_waits_for_room_when_the_replica_leaves_is_lost(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        way.links.chunk(way.envelope("second"), TARGET, 0, SMALL)
        await way.replica.next()
        way.links.chunk(way.envelope("first"), TARGET, 0, LARGE)
        way.replica.leave()
        key, error = await way.heard.over.next()
        assert error is not None
        assert (key, error.reason) == (FIRST, Reason.STAGE_UNAVAILABLE)


# Between pods.


async def test_an_event_leaves_ahead_of_the_tensor_that_is_pushed_for_it(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        ref = await send_one(way)
        push = await way.pushed()
        assert (ref.transfer, ref.checksum) == (push.transfer, 0)
        assert (push.to, push.consumer, push.edge, push.length) == (
            "relay.invalid:2",
            "next-0",
            "here>next",
            len(BYTES),
        )
        assert 0 < push.remaining.seconds < 60
        assert way.links.busy(FIRST)
        way.end_push(push.transfer.number)
        assert await way.heard.over.next() == (FIRST, None)
        assert (way.links.busy(FIRST), way.client.slots.leases) == (False, 0)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Overloaded("There is no room."), id="no room there"),
        pytest.param(OmniError(Reason.STAGE_UNAVAILABLE, "The other relay is gone."), id="no relay there"),
        pytest.param(OmniError(Reason.INTERNAL, "It broke."), id="it broke"),
    ],
)
async def test_a_push_that_fails_by_its_transport_is_sent_again_beside_the_frames(
    tmp_path: Path, error: OmniError
) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        await send_one(way)
        number = (await way.pushed()).transfer.number
        way.end_push(number, error)
        piece = (await way.replica.next()).blob
        assert (piece.blob, piece.request_id, piece.data) == (number, "first", BYTES)
        assert (piece.total_length, piece.checksum) == (len(BYTES), xxhash.xxh3_64_intdigest(BYTES))
        assert await way.heard.over.next() == (FIRST, None)
        await way.until_free()


@pytest.mark.parametrize("error", [DataCorrupted(), DeadlineExceeded(), Cancelled(), LeaseLost("its head is wiped")])
async def test_a_push_that_fails_for_good_fails_its_request(tmp_path: Path, error: OmniError) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        await send_one(way)
        way.end_push((await way.pushed()).transfer.number, error)
        key, lost = await way.heard.over.next()
        assert lost is not None
        assert (key, lost.reason) == (FIRST, error.reason)
        await way.until_free()


async def test_an_abort_cancels_its_pushes_whose_slots_come_back_when_they_have_ended(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        await send_one(way)
        number = (await way.pushed()).transfer.number
        way.links.abandon(FIRST)
        assert (await way.relay.next()).cancel.transfer.number == number
        assert (way.links.busy(FIRST), way.client.slots.leases) == (False, 1)
        way.end_push(number, OmniError(Reason.STAGE_UNAVAILABLE, "Gone anyway."))
        await way.until_free()
        way.links.chunk(way.envelope("second"), TARGET, 0, SMALL)
        assert (await way.replica.next()).key.request_id == "second", "nothing was sent again"
        assert not way.heard.over


async def test_a_push_that_its_relay_leaves_undone_is_sent_again_and_its_slot_is_reused_when_nobody_looks(
    tmp_path: Path,
) -> None:
    def reclaimed() -> float:
        return REGISTRY.get_sample_value("omni_arena_reclaimed_total") or 0.0

    before = reclaimed()
    async with way_out(tmp_path) as way:
        await way.grant(0)
        await send_one(way)
        await way.pushed()
        way.relay.close()
        assert (await way.replica.next()).blob.data == BYTES
        await way.until_free()
    assert reclaimed() == before + 1, "the relay may have looked at it still, so it was not simply released"


async def test_without_its_relay_a_stage_sends_everything_beside_the_frames(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        way.relay.close()
        ref = await send_one(way)
        assert (await way.replica.next()).blob.blob == ref.transfer.number
        await way.until_free()


async def test_what_is_pushed_when_the_replica_leaves_is_lost(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        await send_one(way)
        number = (await way.pushed()).transfer.number
        way.replica.leave()
        assert (await way.relay.next()).cancel.transfer.number == number
        key, error = await way.heard.over.next()
        assert error is not None
        assert (key, error.reason) == (FIRST, Reason.STAGE_UNAVAILABLE)
        way.end_push(number)
        await way.until_free()


async def test_a_tensor_made_in_the_arena_is_pushed_from_where_it_is(tmp_path: Path) -> None:
    async with way_out(tmp_path) as way:
        await way.grant(0)
        data = way.client.slots.allocate(len(BYTES))
        assert data is not None
        data[:] = BYTES
        way.links.chunk(way.envelope("first"), TARGET, 0, Parcel(octets(data)))
        push = await way.pushed()
        assert ref_of(await way.replica.next()).transfer == push.transfer
        assert way.client.slots.leases == 1
        way.end_push(push.transfer.number)
        await way.heard.over.next()
        assert way.client.slots.leases == 1, "its maker has it still"
        del data
        await way.until_free()


async def test_a_stage_that_ends_sends_first_what_it_has(tmp_path: Path) -> None:
    async with way_out(tmp_path, pod=POD) as way:
        for index in range(20):
            way.links.chunk(way.envelope("first"), TARGET, index, SMALL)
        way.links.chunk(way.envelope("second"), TARGET, 0, SMALL)
        with anyio.fail_after(10):
            await way.links.finish()
        assert len(way.replica.events) == 22, "the hello, and all of them"
