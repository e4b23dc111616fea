"""FrameWriter: order within a lane, fairness between lanes, and bounds, whatever is put in whatever order."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.common.v1 import request_pb2, tensor_pb2
from omni.stage.v1 import stage_pb2
from omni_common.errors import OmniError, Reason
from omni_common.rpc.contract import BLOB_PIECE, MAX_EVENT, MAX_MESSAGE
from omni_common.rpc.duplex import PeerGone
from omni_common.rpc.frames import Blob, FrameWriter, PeerStalled

pytestmark = pytest.mark.anyio

Event = stage_pb2.DeliverEvent
MIB = 1 << 20


def chunk(lane: str, index: int, size: int = 0) -> Event:
    event = Event(key=request_pb2.RequestKey(request_id=lane), chunk=stage_pb2.ChunkEvent(index=index))
    if size:
        event.chunk.payload.type = "x" * size
    return event


def blob_event(piece: tensor_pb2.BlobChunk) -> Event:
    return Event(blob=piece)


def blob(number: int, lane: str, size: int, sent: list[int] | None = None) -> Blob:
    data = memoryview(bytes([number % 256]) * size)
    return Blob(number, lane, data, None if sent is None else lambda: sent.append(number))


def writer(max_events: int = 1000, max_bytes: int = 64 * MIB) -> FrameWriter[Event]:
    return FrameWriter(blob_event, max_events=max_events, max_bytes=max_bytes)


async def frames_of(out: FrameWriter[Event]) -> list[list[Event]]:
    """Everything that waits, as the frames it leaves in."""
    frames: list[list[Event]] = []

    async def write(events: list[Event]) -> None:
        frames.append(events)

    out.close()
    await out.run(write)
    return frames


def is_piece(event: Event) -> bool:
    return event.WhichOneof("event") == "blob"


SIZES = st.sampled_from([0, 10, 1000, 300_000, MIB, 2 * MIB])
BLOBS = st.lists(st.sampled_from([0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB]), max_size=2)
PUTS = st.lists(st.tuples(st.sampled_from("abcd"), SIZES, BLOBS), max_size=12)


@settings(max_examples=60, deadline=None)
@given(PUTS)
async def test_whatever_is_put_comes_out_whole_in_order_and_within_bounds(
    puts: list[tuple[str, int, list[int]]],
) -> None:
    await _comes_out_whole(puts)


async def _comes_out_whole(puts: list[tuple[str, int, list[int]]]) -> None:
    out = writer(max_bytes=1 << 30)
    released: list[int] = []
    wanted: dict[str, list[object]] = defaultdict(list)
    number = 0
    for index, (lane, size, sizes) in enumerate(puts):
        blobs = [blob(number := number + 1, lane, length, released) for length in sizes]
        out.put(chunk(lane, index, size), lane=lane, blobs=blobs)
        wanted[lane] += [(b.id, b.data.nbytes) for b in blobs]
        wanted[lane].append(index)
    frames = await frames_of(out)
    assert all(frames), "no frame is empty"
    assert all(sum(event.ByteSize() + 6 for event in frame) <= MAX_MESSAGE for frame in frames)
    assert all(sum(map(is_piece, frame)) <= 1 for frame in frames)
    assert put_together(frames) == wanted
    assert sorted(released) == list(range(1, number + 1))
    assert out.waiting == (0, 0)


def put_together(frames: Sequence[Sequence[Event]]) -> dict[str, list[object]]:
    """Per lane: each blob as (id, length) at its last piece, each event as its index."""
    lanes: dict[str, list[object]] = defaultdict(list)
    lengths: dict[int, int] = {}
    arrived: dict[int, int] = defaultdict(int)
    for event in (event for frame in frames for event in frame):
        if not is_piece(event):
            lanes[event.key.request_id].append(event.chunk.index)
            continue
        piece = event.blob
        assert len(piece.data) <= BLOB_PIECE
        assert set(piece.data) <= {piece.blob % 256}
        if piece.blob not in lengths:
            lengths[piece.blob] = piece.total_length
        else:
            assert piece.total_length == 0
        arrived[piece.blob] += len(piece.data)
        if arrived[piece.blob] == lengths[piece.blob]:
            lanes[piece.request_id].append((piece.blob, lengths[piece.blob]))
    return lanes


async def test_what_one_step_produced_for_many_requests_is_one_frame() -> None:
    out = writer()
    for i in range(100):
        out.put(chunk(f"r{i}", 0), lane=f"r{i}")
    assert [len(frame) for frame in await frames_of(out)] == [100]


async def test_a_large_tensor_delays_nobody_elses_token() -> None:
    out = writer()
    out.put(chunk("large", 0), lane="large", blobs=[blob(1, "large", 8 * MIB)])
    for i in range(5):
        out.put(chunk(f"r{i}", 0), lane=f"r{i}")
    first, *rest = await frames_of(out)
    assert [is_piece(event) for event in first] == [True] + [False] * 5
    assert len(rest) == 7
    assert rest[-1][-1].key.request_id == "large"


async def test_a_blob_whose_event_has_left_follows_it_with_its_own_checksum() -> None:
    out = writer()
    sent: list[int] = []
    out.put(chunk("a", 0), lane="a")
    out.put_blob(Blob(7, "a", memoryview(bytes(2 * MIB)), lambda: sent.append(7), checksum=99), lane="a")
    out.put(chunk("a", 1), lane="a")
    assert out.waiting[0] == 2
    events = [event for frame in await frames_of(out) for event in frame]
    assert [is_piece(event) for event in events] == [False, True, True, False]
    assert [event.blob.checksum for event in events[1:3]] == [99, 0]
    assert (sent, out.waiting) == ([7], (0, 0))


async def test_a_blob_that_finds_no_room_stays_with_who_sent_it() -> None:
    out = writer(max_bytes=MIB)
    sent: list[int] = []
    out.put(chunk("a", 0, MIB // 2), lane="a")
    with pytest.raises(PeerStalled):
        out.put_blob(Blob(7, "a", memoryview(bytes(MIB)), lambda: sent.append(7)), lane="a")
    assert (sent, len(await frames_of(out))) == ([], 1)


async def test_pieces_of_two_tensors_take_turns() -> None:
    out = writer()
    out.put(chunk("a", 0), lane="a", blobs=[blob(1, "a", 4 * MIB)])
    out.put(chunk("b", 0), lane="b", blobs=[blob(2, "b", 2 * MIB)])
    pieces = [event.blob.blob for frame in await frames_of(out) for event in frame if is_piece(event)]
    assert pieces == [1, 2, 1, 2, 1, 1]


async def test_a_lane_with_a_flood_does_not_starve_the_others() -> None:
    out = writer()
    for i in range(20):
        out.put(chunk("flood", i, 300_000), lane="flood")
    out.put(chunk("other", 0), lane="other")
    frames = await frames_of(out)
    assert "other" in {event.key.request_id for event in frames[0] + frames[1]}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=5), SIZES)
async def test_every_waiting_lane_moves_once_while_the_others_move_twice(counts: list[int], size: int) -> None:
    out = writer(max_bytes=1 << 30)
    for lane, count in enumerate(counts):
        for index in range(count):
            out.put(chunk(str(lane), index, size), lane=str(lane))
    left = {str(lane): count for lane, count in enumerate(counts) if count}
    since = dict.fromkeys(left, 0)
    for frame in await frames_of(out):
        moved = {event.key.request_id for event in frame}
        for event in frame:
            left[event.key.request_id] -= 1
        since = {lane: 0 if lane in moved else since[lane] + 1 for lane, count in left.items() if count}
        assert all(frames_waited < len(counts) for frames_waited in since.values())


async def test_too_many_events_are_refused_and_what_waits_still_leaves() -> None:
    out = writer(max_events=2)
    out.put(chunk("a", 0), lane="a")
    out.put(chunk("a", 1), lane="a")
    with pytest.raises(PeerStalled):
        out.put(chunk("a", 2), lane="a")
    assert [event.chunk.index for frame in await frames_of(out) for event in frame] == [0, 1]


async def test_too_many_bytes_are_refused_and_their_blob_stays_the_callers() -> None:
    released: list[int] = []
    out = writer(max_bytes=4 * MIB)
    out.put(chunk("a", 0), lane="a", blobs=[blob(1, "a", 3 * MIB)])
    with pytest.raises(PeerStalled):
        out.put(chunk("b", 0), lane="b", blobs=[blob(2, "b", 2 * MIB, released)])
    assert released == []
    assert out.waiting[0] == 1


async def test_what_can_never_be_sent_is_the_requests_fault() -> None:
    out = writer(max_bytes=4 * MIB)
    for event, blobs in [(chunk("a", 0, MAX_EVENT), []), (chunk("a", 0), [blob(1, "a", 5 * MIB)])]:
        with pytest.raises(OmniError) as refused:
            out.put(event, lane="a", blobs=blobs)
        assert refused.value.reason is Reason.REQUEST_TOO_LARGE


async def test_a_dropped_lane_leaves_nothing_and_gives_its_blobs_back() -> None:
    released: list[int] = []
    out = writer()
    out.put(chunk("a", 0), lane="a", blobs=[blob(1, "a", 2 * MIB, released)])
    out.put(chunk("b", 0), lane="b")
    out.drop("a")
    assert released == [1]
    assert [event.key.request_id for frame in await frames_of(out) for event in frame] == ["b"]
    assert out.waiting == (0, 0)


async def test_a_lane_dropped_while_its_blob_is_half_sent_stops_there() -> None:
    released: list[int] = []
    out = writer()
    out.put(chunk("a", 0), lane="a", blobs=[blob(1, "a", 3 * MIB, released)])
    frames: list[list[Event]] = []

    async def write(events: list[Event]) -> None:
        frames.append(events)
        out.drop("a")
        out.close()

    await out.run(write)
    assert len(frames) == 1
    assert released == [1]
    assert out.waiting == (0, 0)


async def test_a_lost_peer_gives_everything_back_and_closes_the_writer() -> None:
    released: list[int] = []
    out = writer()
    out.put(chunk("a", 0), lane="a", blobs=[blob(1, "a", 100, released), blob(2, "a", 3 * MIB, released)])

    async def write(events: list[Event]) -> None:
        raise PeerGone

    with pytest.raises(PeerGone):
        await out.run(write)
    assert sorted(released) == [1, 2]
    assert out.waiting == (0, 0)
    with pytest.raises(PeerGone):
        out.put(chunk("a", 1), lane="a")


async def test_the_writer_waits_for_work_and_returns_when_closed() -> None:
    out = writer()
    arrived = anyio.Event()
    frames: list[list[Event]] = []

    async def write(events: list[Event]) -> None:
        frames.append(events)
        arrived.set()

    with anyio.fail_after(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(out.run, write)
            await anyio.wait_all_tasks_blocked()
            out.put(chunk("a", 0), lane="a")
            await arrived.wait()
            await anyio.wait_all_tasks_blocked()
            out.close()
    assert [len(frame) for frame in frames] == [1]


async def test_what_is_put_during_a_write_is_coalesced_into_the_next_frame() -> None:
    out = writer()
    out.put(chunk("a", 0), lane="a")
    sizes: list[int] = []

    async def write(events: list[Event]) -> None:
        sizes.append(len(events))
        if len(sizes) == 1:
            for i in range(10):
                out.put(chunk(str(i), 0), lane=str(i))
            out.close()

    await out.run(write)
    assert sizes == [1, 10]


async def test_a_stream_without_blobs_refuses_them() -> None:
    out: FrameWriter[Event] = FrameWriter()
    with pytest.raises(ValueError, match="no blobs"):
        out.put(chunk("a", 0), blobs=[blob(1, "a", 1)])


def test_another_thread_is_refused() -> None:
    out = writer()
    caught: list[BaseException] = []

    def put() -> None:
        try:
            out.put(chunk("a", 0))
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    thread.join()
    assert len(caught) == 1
