"""What becomes of requests whose replicas are lost, between a real coordinator and replicas that the test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from prometheus_client import REGISTRY
from tests.integration.coordinator_process import BOTH, RunningCoordinator, asking, running_coordinator

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.errors import OmniError, Reason, StageUnavailable
from omni_common.request import (
    AudioOutput,
    FinishReason,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Role,
    TerminalResult,
    TextOutput,
    Usage,
)
from omni_common.testing.gateway import FakeGateway, Piece, Ticket, fake_gateway
from omni_common.testing.stage import FakeStage, Place, Script, fake_stage

pytestmark = pytest.mark.anyio

DONE = TerminalResult(FinishReason.STOP, Usage())
FIRST, SECOND = Place("solo", "echo"), Place("solo", "echo", replica="r-1")


def counted(outcome: str, stage: str = "echo", pipeline: str = "solo") -> float:
    labels = {"pipeline": pipeline, "stage": stage, "outcome": outcome}
    return REGISTRY.get_sample_value("omni_failovers_total", labels) or 0.0


@asynccontextmanager
async def two_replicas(
    folder: Path,
    first: Script | None,
    second: Script | None,
    *,
    max_attempts: int = 3,
    max_media: int = 64 << 20,
) -> AsyncIterator[tuple[RunningCoordinator, FakeGateway, FakeStage, FakeStage]]:
    """The first is the one that a request goes to, as its name comes first; `None` is played by the test."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            running_coordinator(folder, max_attempts=max_attempts, max_media=max_media)
        )
        gateway = await stack.enter_async_context(fake_gateway(running.address))
        one, other = [
            await stack.enter_async_context(
                fake_stage(running.address, place, scripts=None if script is None else [script])
            )
            for place, script in ((FIRST, first), (SECOND, second))
        ]
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 2)
        yield running, gateway, one, other


async def text_of(ticket: Ticket) -> str:
    """All of it, read to its good end; outputs have the numbers that follow each other."""
    pieces: list[Piece] = []
    while isinstance(notice := await ticket.notices.next(), Piece):
        assert notice.index == len(pieces)
        pieces.append(notice)
        ticket.read(text=1)
    assert isinstance(notice, TerminalResult), repr(notice)
    return "".join(piece.output.text for piece in pieces if isinstance(piece.output, TextOutput))


async def test_a_request_that_has_said_nothing_begins_again_elsewhere(tmp_path: Path) -> None:
    before = counted("rerun")
    async with two_replicas(tmp_path, None, [TextOutput("all"), DONE]) as (running, gateway, first, second):
        ticket = gateway.submit(asking())
        await ticket.admitted()
        lost = await first.dispatched.next()
        first.end()
        again = await second.dispatched.next()
        assert await text_of(ticket) == "all"
        await running.idle()
    assert (again.key.request_id, again.key.attempt) == (lost.key.request_id, lost.key.attempt + 1)
    assert again.request == lost.request
    assert again.envelope.params.fallback_seed == lost.envelope.params.fallback_seed != 0
    assert again.envelope.deadline == pytest.approx(lost.envelope.deadline, abs=0.5)
    assert counted("rerun") == before + 1


async def test_a_request_goes_on_where_its_caller_is(tmp_path: Path) -> None:
    before = counted("resumed")
    script: Script = [TextOutput("one t"), TextOutput("wo"), TextOutput(" three"), DONE]
    async with two_replicas(tmp_path, None, script) as (running, gateway, first, _):
        ticket = gateway.submit(asking())
        await ticket.admitted()
        key = (await first.dispatched.next()).key
        first.output(key, 0, TextOutput("one "))
        first.output(key, 1, TextOutput("two th"))
        pieces = [await ticket.piece(), await ticket.piece()]
        first.end()
        pieces.append(await ticket.piece())
        assert await ticket.finished() == DONE
        await running.idle()
    assert pieces == [Piece(0, TextOutput("one ")), Piece(1, TextOutput("two th")), Piece(2, TextOutput("ree"))]
    assert counted("resumed") == before + 1


async def test_another_answer_ends_the_request_with_one_error_that_says_try_again(tmp_path: Path) -> None:
    before = counted("diverged")
    async with two_replicas(tmp_path, None, [TextOutput("another")]) as (running, gateway, first, second):
        ticket = gateway.submit(asking())
        await ticket.admitted()
        first.output((await first.dispatched.next()).key, 0, TextOutput("one"))
        await ticket.piece()
        first.end()
        error = await ticket.failed()
        assert (error.reason, error.stage, error.retry_after is None) == (Reason.STAGE_UNAVAILABLE, "echo", False)
        assert (await second.aborted.next()).attempt == 1
        await running.idle()
    assert counted("diverged") == before + 1


async def test_without_another_replica_the_request_fails_at_once_with_advice_to_retry(tmp_path: Path) -> None:
    before = counted("no_replica")
    async with (
        running_coordinator(tmp_path) as running,
        fake_gateway(running.address) as gateway,
        fake_stage(running.address, FIRST, scripts=None) as only,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking())
        await ticket.admitted()
        await only.dispatched.next()
        only.end()
        error = await ticket.failed()
        assert (error.reason, error.stage, error.retry_after is None) == (Reason.STAGE_UNAVAILABLE, "echo", False)
        await running.idle()
    assert counted("no_replica") == before + 1


async def test_attempts_are_bounded_by_the_setting(tmp_path: Path) -> None:
    before = counted("exhausted")
    async with two_replicas(tmp_path, None, None, max_attempts=1) as (running, gateway, first, second):
        ticket = gateway.submit(asking())
        await ticket.admitted()
        await first.dispatched.next()
        first.end()
        assert (await ticket.failed()).reason is Reason.STAGE_UNAVAILABLE
        await running.idle()
        assert not second.dispatched.waiting
    assert counted("exhausted") == before + 1


async def test_what_a_replica_says_of_an_attempt_that_was_taken_from_it_changes_nothing(tmp_path: Path) -> None:
    """As one does that hung: its neighbours gave it up before it woke."""
    async with two_replicas(tmp_path, None, None) as (running, gateway, first, second):
        ticket = gateway.submit(asking())
        await ticket.admitted()
        old = (await first.dispatched.next()).key
        first.fail(old, StageUnavailable("echo", "lost its replica"))
        new = (await second.dispatched.next()).key
        assert await first.aborted.next() == old
        first.output(old, 0, TextOutput("late"))
        first.complete(old, DONE)
        first.fail(old, OmniError(Reason.INTERNAL, "Late."))
        first.phase(pb.STAGE_PHASE_DRAINING)  # heard after all of that
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 1)
        second.output(new, 0, TextOutput("new"))
        second.complete(new, DONE)
        assert await text_of(ticket) == "new"
        await running.idle()


async def test_a_place_is_given_back_when_the_old_attempt_is_answered_and_a_draining_replica_is_dismissed_then(
    tmp_path: Path,
) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_gateway(running.address) as gateway,
        fake_stage(running.address, FIRST, scripts=None, answers_aborts=False) as first,
        fake_stage(running.address, SECOND, scripts=[[DONE]]),
    ):
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 2)
        ticket = gateway.submit(asking())
        await ticket.admitted()
        key = (await first.dispatched.next()).key
        first.phase(pb.STAGE_PHASE_DRAINING)
        first.fail(key, StageUnavailable("echo", "lost its replica"))
        await ticket.finished()
        assert await first.aborted.next() == key
        assert running.coordinator.live == 1
        assert not first.dismissed.is_set()
        first.answer_abort(key)
        await running.idle()
        with anyio.fail_after(5):
            await first.dismissed.wait()


async def test_an_old_attempt_that_nobody_answers_is_given_up_in_time(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path, abort_timeout=0.2) as running,
        fake_gateway(running.address) as gateway,
        fake_stage(running.address, FIRST, scripts=None, answers_aborts=False) as first,
        fake_stage(running.address, SECOND, scripts=None) as second,
    ):
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 2)
        ticket = gateway.submit(asking())
        await ticket.admitted()
        key = (await first.dispatched.next()).key
        first.fail(key, StageUnavailable("echo", "lost its replica"))
        again = (await second.dispatched.next()).key
        [replica, _] = sorted(running.coordinator.state("solo").stages["echo"], key=lambda replica: replica.name)
        with anyio.fail_after(5):
            while replica.outstanding:  # noqa: ASYNC110  # the request goes on, so nothing says so
                await anyio.sleep(0.01)
        second.complete(again, DONE)
        await ticket.finished()
        await running.idle()


async def test_a_caller_gets_no_more_than_it_has_room_for(tmp_path: Path) -> None:
    pieces = [TextOutput(letter) for letter in "abcdef"]
    async with two_replicas(tmp_path, pieces, [*pieces, DONE]) as (running, gateway, first, second):
        ticket = gateway.submit(asking(), output_credits=2)
        await ticket.admitted()
        assert [(await ticket.piece()).index for _ in range(2)] == [0, 1]
        first.end()
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 1)
        assert not second.dispatched.waiting, "a stage that may send nothing could not make it again"
        for index in range(2, 6):
            ticket.read(text=1)
            assert await ticket.piece() == Piece(index, pieces[index])
            assert index == 5 or not ticket.notices.waiting
        assert await ticket.finished() == DONE
        assert (await second.dispatched.next()).envelope.output_credits == 1
        await running.idle()


def with_image(size: int) -> GenerationRequest:
    image = Media(Modality.IMAGE, bytes(range(256)) * (size // 256), "messages[0].parts[0]")
    return replace(asking(), messages=(Message(Role.USER, (image,)),))


async def test_media_are_sent_again(tmp_path: Path) -> None:
    asked = with_image(3 << 20)
    async with two_replicas(tmp_path, None, [DONE]) as (running, gateway, first, second):
        ticket = gateway.submit(asked)
        await ticket.admitted()
        await first.dispatched.next()
        first.end()
        await ticket.finished()
        assert (await second.dispatched.next()).request == asked
        await running.idle()
        assert (running.coordinator.media.held, running.coordinator.media.kept) == (0, 0)


async def test_media_that_gave_way_to_a_new_request_cannot_be_sent_again(tmp_path: Path) -> None:
    before = counted("not_kept")
    async with two_replicas(tmp_path, None, None, max_media=4 << 20) as (running, gateway, first, second):
        old = gateway.submit(with_image(3 << 20))
        await old.admitted()
        await first.dispatched.next()
        new = gateway.submit(with_image(3 << 20))
        await new.admitted()
        work = await second.dispatched.next()
        first.end()
        assert (await old.failed()).reason is Reason.STAGE_UNAVAILABLE
        second.complete(work.key, DONE)
        await new.finished()
        await running.idle()
    assert counted("not_kept") == before + 1


async def test_text_and_speech_both_go_on(tmp_path: Path) -> None:
    spoken = [AudioOutput(bytes([n]) * 2000, 24000) for n in range(3)]
    whole = AudioOutput(b"".join(piece.pcm for piece in spoken), 24000)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_coordinator(tmp_path))
        gateway = await stack.enter_async_context(fake_gateway(running.address))

        async def replica(stage: str, name: str) -> FakeStage:
            place = Place("duo", stage, replica=name)
            return await stack.enter_async_context(fake_stage(running.address, place, scripts=None))

        read, write, leaves, speak = [
            await replica(*at) for at in (("read", "r"), ("write", "r"), ("speak", "r-0"), ("speak", "r-1"))
        ]
        await gateway.until("duo", lambda status: [s.ready_replicas for s in status.stages] == [1, 1, 2])
        ticket = gateway.submit(asking("duo", modalities=BOTH))
        await ticket.admitted()
        key = (await read.dispatched.next()).key
        write.output(key, 0, TextOutput("one"))
        write.complete(key, DONE)
        leaves.output(key, 0, spoken[0])
        leaves.output(key, 1, spoken[1])
        assert {(await ticket.piece()).index for _ in range(3)} == {0, 1}
        leaves.end()
        again = (await read.dispatched.next()).key
        assert await write.aborted.next() == key
        write.output(again, 0, TextOutput("on"))
        write.output(again, 1, TextOutput("e"))
        write.complete(again, DONE)
        speak.output(again, 0, whole)
        speak.complete(again, TerminalResult(None, Usage()))
        assert await ticket.piece() == Piece(2, spoken[2])
        await ticket.finished()
        await running.idle()
