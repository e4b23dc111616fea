"""Between two stages of one process: the value itself, in order, from the event loop, and never for a request that is
over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import REGISTRY
from tests.unit.common.relay_peer import Letters
from tests.unit.stage.downstream import Heard
from tests.unit.stage.upstream import CODEC, LARGE, PIPELINE, Nowhere, Owner, Parcel, Recorder

from omni_common.clock import monotonic
from omni_common.errors import OmniError, Reason
from omni_common.request import Binding, Envelope, GenerationParams, RequestKey
from omni_common.transfer import TensorSender
from omni_stage.core.plan import Planner
from omni_stage.core.request import Hooks
from omni_stage.identity import Identity
from omni_stage.loop import LoopThread
from omni_stage.neighbours import Neighbour, Neighbours
from omni_stage.outgoing import PeerLinks
from omni_stage.peer_link import Outfit
from omni_stage.scheduler.contract import Chunk, Consumed, Incoming
from omni_stage.stage import Stage

pytestmark = pytest.mark.anyio

FIRST, SECOND = RequestKey("first"), RequestKey("second")
HERE = Binding("here-0", "here.invalid:1", "pod-0", "relay.invalid:1")


class Taker(Recorder):
    """Keeps the very chunks that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: Letters[object] = Letters()

    def submit(self, item: Incoming) -> None:
        super().submit(item)
        if isinstance(item, Chunk):
            self.chunks.put(item.chunk)


@dataclass(frozen=True)
class Both:
    """The links of the stage `before`, and the stage `here` of the same process."""

    links: PeerLinks
    heard: Heard
    stage: Stage
    scheduler: Taker
    owner: Owner

    def envelope(self, request: str, *, coordinator: str = "c", binding: Binding = HERE) -> Envelope:
        now = monotonic()
        return Envelope(
            key=RequestKey(request),
            pipeline="pipeline",
            coordinator=coordinator,
            deadline=now + 60,
            origin=now,
            bindings={"here": binding, "before": HERE},
            terminals=frozenset({"here"}),
            params=GenerationParams(),
            output_credits=1,
        )

    async def given(self, number: int) -> list[tuple[str, str]]:
        return [await self.scheduler.items.next() for _ in range(number)]


@asynccontextmanager
async def both() -> AsyncIterator[Both]:
    loop, neighbours = LoopThread(), Neighbours(2)
    scheduler, owner, heard = Taker(), Owner(), Heard()
    identity = Identity("pipeline", "here", "here-0", "pod-0", "node", "here.invalid:1", 8)
    stage = Stage(identity, downstream=Nowhere(), clock=monotonic)
    stage.attach("c", owner)
    stage.open(Planner(PIPELINE, "here", "here-0"), Hooks(), scheduler)
    scheduler.start(stage.on_outgoing)
    neighbours.join(Neighbour(stage, loop))
    before = Identity("pipeline", "before", "before-0", "pod-0", "node", "before.invalid:1", 8)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        links = PeerLinks(Outfit(before, CODEC, TensorSender(), None, monotonic, neighbours), tasks=tasks)
        links.answer_to(heard)
        yield Both(links, heard, stage, scheduler, owner)
        tasks.cancel_scope.cancel()


async def test_the_other_stage_gets_the_value_itself_and_gets_it_from_the_loop() -> None:
    async with both() as there:
        there.links.chunk(there.envelope("first"), "here", 0, LARGE)
        assert not there.stage.knows(FIRST), "not from within the work of the one that sends"
        assert there.links.busy(FIRST)
        assert await there.scheduler.chunks.next() is LARGE
        assert await there.heard.over.next() == (FIRST, None)
        assert not there.links.busy(FIRST)


async def test_events_of_a_request_come_in_their_order() -> None:
    async with both() as there:
        for index in range(50):
            there.links.chunk(there.envelope("first"), "here", index, LARGE)
            there.links.chunk(there.envelope("second"), "here", index, LARGE)
        there.links.done(there.envelope("first"), "here", 50, ())
        given = await there.given(103)
        assert [what for request, what in given if request == "first"] == ["begins", *["large"] * 50, "done"]
        assert not there.owner.failures, "a chunk out of its order fails its request"


async def test_what_is_consumed_is_paid_for() -> None:
    async with both() as there:
        for index in range(32):
            there.links.chunk(there.envelope("first"), "here", index, LARGE)
        await there.given(33)
        there.stage.on_outgoing([Consumed(FIRST, "before", 32)])
        assert not there.heard.granted, "nor is the payment made from within"
        key, chunks = await there.heard.granted.next()
        assert (key, chunks) == (FIRST, 32)


async def test_an_abort_drops_what_has_not_been_handed_over() -> None:
    async with both() as there:
        there.links.chunk(there.envelope("first"), "here", 0, LARGE)
        there.links.abandon(FIRST)
        there.links.chunk(there.envelope("second"), "here", 0, LARGE)
        assert await there.given(2) == [("second", "begins"), ("second", "large")]
        assert not there.links.busy(FIRST)


async def test_what_comes_for_a_request_that_is_over_is_dropped_and_counted() -> None:
    def late() -> float:
        return REGISTRY.get_sample_value("omni_late_events_total", {"stage": "here"}) or 0.0

    async with both() as there:
        counted = late()
        there.stage.abort(FIRST, there.owner)
        there.links.chunk(there.envelope("first"), "here", 0, LARGE)
        assert await there.heard.over.next() == (FIRST, None)
        assert late() == counted + 1
        assert not there.heard.failed


async def test_a_request_of_a_coordinator_that_the_other_stage_does_not_know_fails() -> None:
    async with both() as there:
        there.links.chunk(there.envelope("first", coordinator="stranger"), "here", 0, LARGE)
        key, error = await there.heard.failed.next()
        assert (key, error.reason) == (FIRST, Reason.INTERNAL)


async def test_what_the_other_stage_cannot_take_fails_its_request_there() -> None:
    async with both() as there:
        there.links.chunk(there.envelope("first"), "here", 5, LARGE)
        request, error = await there.owner.failures.next()
        assert (request, error.reason) == ("first", Reason.INTERNAL)


async def test_a_value_of_no_declared_type_is_refused_as_on_every_way() -> None:
    async with both() as there:
        with pytest.raises(OmniError, match="not a declared payload type"):
            there.links.chunk(there.envelope("first"), "here", 0, "no parcel")
        assert not there.links.busy(FIRST)


async def test_metrics_say_that_it_is_the_object_and_why() -> None:
    edge = {"edge": "before>here", "transport": "object"}

    def sent() -> float:
        return REGISTRY.get_sample_value("omni_edge_bytes_total", edge) or 0.0

    async with both() as there:
        before = sent()
        there.links.chunk(there.envelope("first"), "here", 0, LARGE)
        assert sent() == before + LARGE.tensor.nbytes
        why = {**edge, "reason": "same_process"}
        assert REGISTRY.get_sample_value("omni_edge_transport_info", why) == 1


async def test_a_stage_that_ends_hands_over_first_what_it_has() -> None:
    async with both() as there:
        for index in range(10):
            there.links.chunk(there.envelope("first"), "here", index, LARGE)
        with anyio.fail_after(10):
            await there.links.finish()
        assert len(there.scheduler.chunks) == 10


@pytest.mark.parametrize(
    "binding",
    [
        Binding("here-0", "127.0.0.1:1", "pod-0"),
        Binding("here-1", HERE.address, "pod-0"),
        Binding("here-0", HERE.address, "pod-1"),
    ],
)
async def test_a_replica_elsewhere_is_not_taken_for_one_of_this_process(binding: Binding) -> None:
    async with both() as there:
        there.links.chunk(there.envelope("first", binding=binding), "here", 0, LARGE)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert not there.stage.knows(FIRST)


def test_of_a_value_all_tensors_are_found() -> None:
    assert [*CODEC.tensors(Parcel(LARGE.tensor))] == [LARGE.tensor]
