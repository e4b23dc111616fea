"""What comes to a stage ahead of its tensors: order within a request, freedom among requests, and nothing left over."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
import xxhash
from tests.unit.stage.upstream import BYTES, LARGE, SMALL, WayIn, way_in

from omni_common.errors import Reason
from omni_common.request import RequestKey

pytestmark = pytest.mark.anyio

CHECKSUM = xxhash.xxh3_64_intdigest(BYTES)


async def given(way: WayIn, number: int) -> list[tuple[str, str]]:
    """The next things that the scheduler is given."""
    return [await way.scheduler.items.next() for _ in range(number)]


async def test_an_event_waits_for_its_tensor_and_the_later_ones_of_its_request_behind_it(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.send("first", SMALL)
        way.end("first", 2)
        way.send("second", SMALL)
        assert await given(way, 3) == [("first", "begins"), ("second", "begins"), ("second", "small")]
        way.arrive("first", pushed)
        assert await given(way, 3) == [("first", "large"), ("first", "small"), ("first", "done")]
        await way.returned.next()


async def test_tensors_that_arrive_in_another_order_are_handed_over_in_theirs(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [early] = way.send("first", LARGE)
        way.send("first", SMALL)
        [late] = way.send("first", LARGE)
        assert await given(way, 1) == [("first", "begins")]
        way.arrive("first", late)
        way.arrive("first", early)
        assert await given(way, 3) == [("first", "large"), ("first", "small"), ("first", "large")]


async def test_a_tensor_that_arrives_before_its_event_is_kept_for_it(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.arrive("first", pushed)
        assert await given(way, 2) == [("first", "begins"), ("first", "large")]


async def test_a_blob_lets_the_event_go_on_where_the_push_has_failed(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.send("first", SMALL)
        way.blob("first", pushed.number, CHECKSUM)
        assert await given(way, 3) == [("first", "begins"), ("first", "large"), ("first", "small")]
        way.arrive("first", pushed)
        await way.returned.next()
        assert len(way.arrivals) == 0


async def test_a_blob_that_is_not_what_was_sent_fails_its_request(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.blob("first", pushed.number, CHECKSUM ^ 1)
        request, error = await way.owner.failures.next()
        assert (request, error.reason) == ("first", Reason.LEASE_LOST)


async def test_a_tensor_of_another_length_fails_its_request_and_goes_back(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.arrive("first", pushed, BYTES[:-1])
        request, error = await way.owner.failures.next()
        assert (request, error.reason) == ("first", Reason.LEASE_LOST)
        await way.returned.next()


async def test_what_waits_goes_with_its_request_and_so_does_what_arrives_later(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [early] = way.send("first", LARGE)
        way.send("first", SMALL)
        [late] = way.send("first", LARGE)
        way.arrive("first", late)
        assert await given(way, 1) == [("first", "begins")]
        way.stage.abort(RequestKey("first"), way.owner)
        assert await way.owner.aborts.next() == "first"
        await way.returned.next()
        way.arrive("first", early)
        await way.returned.next()
        way.send("second", SMALL)
        assert await given(way, 2) == [("second", "begins"), ("second", "small")]


async def test_what_comes_for_a_request_that_is_over_is_given_back_unread(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        way.stage.abort(RequestKey("first"), way.owner)
        [pushed] = way.send("first", LARGE)
        way.arrive("first", pushed)
        await way.returned.next()
        way.send("second", SMALL)
        assert await given(way, 2) == [("second", "begins"), ("second", "small")]


async def test_what_waits_is_handed_over_although_its_sender_has_left(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.end("first", 1)
        way.hang_up()
        assert await given(way, 1) == [("first", "begins")]
        await anyio.wait_all_tasks_blocked()
        way.arrive("first", pushed)
        assert await given(way, 2) == [("first", "large"), ("first", "done")]
        await way.returned.next()


async def test_what_waits_for_a_sender_that_has_left_goes_with_its_request(tmp_path: Path) -> None:
    async with way_in(tmp_path) as way:
        [pushed] = way.send("first", LARGE)
        way.hang_up()
        await given(way, 1)
        await anyio.wait_all_tasks_blocked()
        way.stage.abort(RequestKey("first"), way.owner)
        way.arrive("first", pushed)
        await way.returned.next()
        assert len(way.arrivals) == 0
