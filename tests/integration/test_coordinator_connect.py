"""Requests of a gateway, from submit to their end, over real gRPC with scripted stages."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.integration.coordinator_process import BOTH, RunningCoordinator, asking, running_coordinator

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.deadline import Deadline
from omni_common.errors import OmniError, Reason
from omni_common.errors import StageFailed as StageError
from omni_common.request import (
    AudioOutput,
    FinishReason,
    GenerationParams,
    Media,
    Message,
    Modality,
    Role,
    StageReport,
    TerminalResult,
    Text,
    TextOutput,
    TraceContext,
    Usage,
)
from omni_common.testing.gateway import FakeGateway, Piece, fake_gateway
from omni_common.testing.mail import PATIENCE
from omni_common.testing.stage import FakeStage, Place, Script, fake_stage

pytestmark = pytest.mark.anyio

DONE = TerminalResult(FinishReason.STOP, Usage(prompt_tokens=2, completion_text_tokens=1))
SOLO_STAGE = Place("solo", "echo")


class Duo:
    """The three replicas of `duo`, played by the test, and a gateway."""

    def __init__(self, read: FakeStage, write: FakeStage, speak: FakeStage, gateway: FakeGateway) -> None:
        self.read = read
        self.write = write
        self.speak = speak
        self.gateway = gateway

    @property
    def stages(self) -> tuple[FakeStage, ...]:
        return self.read, self.write, self.speak


async def duo(stack: AsyncExitStack, running: RunningCoordinator, *, answers_aborts: bool = True) -> Duo:
    read, write, speak = [
        await stack.enter_async_context(
            fake_stage(running.address, Place("duo", stage), scripts=None, answers_aborts=answers_aborts)
        )
        for stage in ("read", "write", "speak")
    ]
    gateway = await stack.enter_async_context(fake_gateway(running.address))
    await gateway.until_ready("duo")
    return Duo(read, write, speak, gateway)


async def test_a_request_streams_from_its_stage_to_its_gateway_and_ends_with_usage(tmp_path: Path) -> None:
    script: Script = [TextOutput("hel"), TextOutput("lo"), DONE]
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[script]) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking(), trace=TraceContext("00-" + "1" * 32 + "-" + "2" * 16 + "-01"))
        request_id = await ticket.admitted()
        assert [await ticket.piece(), await ticket.piece()] == [
            Piece(0, TextOutput("hel")),
            Piece(1, TextOutput("lo")),
        ]
        assert await ticket.finished() == DONE
        work = await stage.dispatched.next()
        assert work.key.request_id == request_id
        assert len(request_id) == len("req_") + 32
        assert work.envelope.coordinator == stage.coordinator
        assert work.envelope.trace.traceparent.startswith("00-1111")
        assert work.envelope.bindings["echo"].replica == "r-0"
        assert work.request == asking()
        await running.idle()
        assert not stage.aborted.waiting


async def test_a_request_for_speech_ends_when_both_terminals_have_and_unites_what_they_say(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_coordinator(tmp_path))
        mesh = await duo(stack, running)
        ticket = mesh.gateway.submit(asking("duo", modalities=BOTH))
        await ticket.admitted()
        work = await mesh.read.dispatched.next()
        assert work.envelope.terminals == {"write", "speak"}
        assert work.envelope.params.voice == "ada"
        assert set(work.envelope.bindings) == {"read", "write", "speak"}
        mesh.write.output(work.key, 0, TextOutput("hi"))
        assert await ticket.piece() == Piece(0, TextOutput("hi"))
        mesh.speak.output(work.key, 0, AudioOutput(b"\1\0", 24000))
        assert await ticket.piece() == Piece(0, AudioOutput(b"\1\0", 24000))
        both = StageReport("read", "r-0", 0.0, 0.25, 0.5)
        mesh.write.complete(work.key, replace(DONE, reports=(both, StageReport("write", "r-0", 0.5, 0.5, 0.75))))
        mesh.speak.complete(work.key, TerminalResult(None, Usage(completion_audio_tokens=9), (both,)))
        result = await ticket.finished()
        assert result.finish_reason is FinishReason.STOP
        assert result.usage == Usage(prompt_tokens=2, completion_text_tokens=1, completion_audio_tokens=9)
        assert [report.stage for report in result.reports] == ["read", "write"]


async def test_a_request_for_text_does_not_need_the_stages_that_only_speak(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, Place("duo", "read"), scripts=None) as read,
        fake_stage(running.address, Place("duo", "write"), scripts=None) as write,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until("duo", lambda status: sum(stage.ready_replicas for stage in status.stages) == 2)
        assert not gateway.pipelines["duo"].ready
        ticket = gateway.submit(asking("duo"))
        await ticket.admitted()
        work = await read.dispatched.next()
        assert set(work.envelope.bindings) == {"read", "write"}
        write.complete(work.key, DONE)
        await ticket.finished()
        spoken = gateway.submit(asking("duo", modalities=BOTH))
        refusal = await spoken.failed()
        assert (refusal.reason, refusal.stage) == (Reason.STAGE_UNAVAILABLE, "speak")


async def test_media_reach_the_entry_stage_byte_for_byte(tmp_path: Path) -> None:
    large, small = bytes(range(256)) * 12_000, b"\x89PNG"
    parts = (
        Text("look", "t"),
        Media(Modality.IMAGE, large, "messages[0].content[1]"),
        Media(Modality.IMAGE, small, "x"),
    )
    request = replace(asking(), messages=(Message(Role.USER, parts),))
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[[DONE], [DONE]]) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        for _ in range(2):
            ticket = gateway.submit(request)
            await ticket.admitted()
            await ticket.finished()
            assert (await stage.dispatched.next()).request.messages == request.messages
        assert running.coordinator.media.held == 0


async def test_media_above_the_bound_of_one_request_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    half = Media(Modality.IMAGE, bytes(33 << 20))
    request = replace(asking(), messages=(Message(Role.USER, (half, half)),))
    async with (
        running_coordinator(tmp_path, max_media=200 << 20) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[[DONE]]),
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        assert (await gateway.submit(request).failed()).reason is Reason.REQUEST_TOO_LARGE
        assert running.coordinator.media.held == 0
        await gateway.submit(asking()).admitted()


async def test_media_above_the_bound_of_the_coordinator_are_refused_as_overload(tmp_path: Path) -> None:
    request = replace(asking(), messages=(Message(Role.USER, (Media(Modality.IMAGE, bytes(200_000)),)),))
    async with (
        running_coordinator(tmp_path, max_media=100_000) as running,
        fake_stage(running.address, SOLO_STAGE),
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        assert (await gateway.submit(request).failed()).reason is Reason.OVERLOADED
        assert running.coordinator.media.held == 0
        assert running.coordinator.live == 0


@pytest.mark.parametrize(
    ("model", "params", "reason", "param"),
    [
        pytest.param("nobody", GenerationParams(), Reason.MODEL_NOT_FOUND, "model", id="an unknown model"),
        pytest.param("duo", GenerationParams(voice="eve"), Reason.INVALID_REQUEST, "audio.voice", id="a voice"),
        pytest.param("solo", GenerationParams(BOTH), Reason.UNSUPPORTED, "modalities", id="speech from a text model"),
    ],
)
async def test_what_a_pipeline_does_not_have_is_refused_before_any_stage_hears_of_it(
    tmp_path: Path, model: str, params: GenerationParams, reason: Reason, param: str
) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE),
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        refusal = await gateway.submit(replace(asking(model), params=params)).failed()
        assert (refusal.reason, refusal.param) == (reason, param)
        assert running.coordinator.live == 0


async def test_above_the_limit_of_live_requests_the_next_is_refused_and_later_admitted(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path, max_live_requests=1) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        first = gateway.submit(asking())
        await first.admitted()
        refusal = await gateway.submit(asking()).failed()
        assert refusal.reason is Reason.OVERLOADED
        assert refusal.retry_after is not None
        stage.complete((await stage.dispatched.next()).key, DONE)
        await first.finished()
        await gateway.submit(asking()).admitted()


async def test_a_replica_gets_no_more_than_its_capacity(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, replace(SOLO_STAGE, capacity=1), scripts=None),
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        await gateway.submit(asking()).admitted()
        refusal = await gateway.submit(asking()).failed()
        assert (refusal.reason, refusal.stage) == (Reason.OVERLOADED, "echo")


async def test_a_cancelled_request_is_aborted_everywhere_and_its_place_is_free_when_all_have_answered(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_coordinator(tmp_path))
        mesh = await duo(stack, running, answers_aborts=False)
        ticket = mesh.gateway.submit(asking("duo", modalities=BOTH))
        await ticket.admitted()
        ticket.cancel()
        assert (await ticket.failed()).reason is Reason.CANCELLED
        for stage in mesh.stages:
            key = await stage.aborted.next()
            assert running.coordinator.live == 1
            stage.answer_abort(key)
        await running.idle()


async def test_a_replica_that_does_not_answer_an_abort_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path, abort_timeout=0.05) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None, answers_aborts=False) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking())
        await ticket.admitted()
        ticket.cancel()
        await ticket.failed()
        await stage.aborted.next()
        await running.idle()


async def test_a_deadline_ends_a_request_that_its_stages_do_not(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking(), remaining=0.05)
        await ticket.admitted()
        assert (await ticket.failed()).reason is Reason.DEADLINE_EXCEEDED
        await stage.aborted.next()
        await running.idle()


async def test_a_request_whose_time_is_over_already_is_not_begun(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE),
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        assert (await gateway.submit(asking(), remaining=0).failed()).reason is Reason.DEADLINE_EXCEEDED


async def test_a_failed_stage_fails_its_request_alone(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_coordinator(tmp_path))
        mesh = await duo(stack, running)
        broken, sound = mesh.gateway.submit(asking("duo")), mesh.gateway.submit(asking("duo"))
        await broken.admitted()
        await sound.admitted()
        first, second = await mesh.read.dispatched.next(), await mesh.read.dispatched.next()
        mesh.read.fail(first.key, StageError("read"))
        failure = await broken.failed()
        assert (failure.reason, failure.stage) == (Reason.STAGE_FAILED, "read")
        assert await mesh.write.aborted.next() == first.key
        mesh.write.complete(second.key, DONE)
        await sound.finished()
        await running.idle()


async def test_a_lost_replica_fails_the_requests_bound_to_it_and_no_others(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path, max_attempts=1) as running,
        fake_gateway(running.address) as gateway,
        fake_stage(running.address, replace(SOLO_STAGE, replica="r-1"), scripts=None) as stays,
    ):
        async with fake_stage(running.address, SOLO_STAGE, scripts=None) as leaves:
            await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 2)
            doomed, lucky = gateway.submit(asking()), gateway.submit(asking())
            await doomed.admitted()
            await lucky.admitted()
            await leaves.dispatched.next()
        failure = await doomed.failed()
        assert (failure.reason, failure.stage) == (Reason.STAGE_UNAVAILABLE, "echo")
        assert failure.retry_after is not None
        stays.complete((await stays.dispatched.next()).key, DONE)
        await lucky.finished()
        await running.idle()


async def test_a_gateway_that_leaves_takes_its_requests_with_it_and_no_others(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as stays,
    ):
        await stays.until_ready("solo")
        kept = stays.submit(asking())
        await kept.admitted()
        kept_work = await stage.dispatched.next()
        async with fake_gateway(running.address) as leaves:
            await leaves.submit(asking()).admitted()
            lost_work = await stage.dispatched.next()
        assert await stage.aborted.next() == lost_work.key
        stage.complete(kept_work.key, DONE)
        await kept.finished()
        await running.idle()


async def test_a_draining_replica_finishes_what_it_has_and_gets_nothing_new(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking())
        await ticket.admitted()
        stage.phase(pb.STAGE_PHASE_DRAINING)
        await gateway.until("solo", lambda status: not status.ready)
        assert (await gateway.submit(asking()).failed()).reason is Reason.STAGE_UNAVAILABLE
        assert not stage.dismissed.is_set()
        stage.complete((await stage.dispatched.next()).key, DONE)
        await ticket.finished()
        await stage.dismissed.wait()


async def test_a_draining_replica_that_nobody_needs_is_dismissed_at_once(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        stage.phase(pb.STAGE_PHASE_DRAINING)
        with anyio.fail_after(5):
            await stage.dismissed.wait()


async def test_a_gateway_hears_how_far_a_replica_has_loaded(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_gateway(running.address) as gateway,
        fake_stage(running.address, SOLO_STAGE, phase=pb.STAGE_PHASE_STARTING) as stage,
    ):
        stage.phase(pb.STAGE_PHASE_LOADING, loaded=3, total=7)
        status = await gateway.until("solo", lambda status: any(r.tensors_loaded for r in status.stages[0].replicas))
        replica = status.stages[0].replicas[0]
        assert (replica.replica, replica.phase, replica.tensors_total) == ("r-0", pb.STAGE_PHASE_LOADING, 7)
        assert not status.ready
        stage.phase(pb.STAGE_PHASE_READY)
        await gateway.until_ready("solo")


async def test_a_stage_sends_no_more_than_the_gateway_has_room_for(tmp_path: Path) -> None:
    script: Script = [*(TextOutput(str(n)) for n in range(5)), DONE]
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[script]) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking(), output_credits=2)
        await ticket.admitted()
        assert [(await ticket.piece()).index for _ in range(2)] == [0, 1]
        ticket.read(text=1, audio=1)
        assert (await ticket.piece()).index == 2
        granted = await stage.granted.next()
        assert (granted.text, granted.audio) == (1, 0)
        assert not ticket.notices.waiting
        ticket.read(text=2)
        assert [(await ticket.piece()).index for _ in range(2)] == [3, 4]
        await ticket.finished()


async def test_least_busy_replicas_and_one_pod_are_preferred(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_coordinator(tmp_path))
        gateway = await stack.enter_async_context(fake_gateway(running.address))
        readers = {}
        for number in range(2):
            pod = f"pod-{number}"
            place = Place("duo", "read", f"read-{number}", pod)
            readers[place.replica] = await stack.enter_async_context(fake_stage(running.address, place, scripts=None))
            place = Place("duo", "write", f"write-{1 - number}", pod)
            await stack.enter_async_context(fake_stage(running.address, place, scripts=None))
        await gateway.until("duo", lambda status: sum(stage.ready_replicas for stage in status.stages) == 4)
        for name, partner in (("read-0", "write-1"), ("read-1", "write-0")):
            await gateway.submit(asking("duo")).admitted()
            work = await readers[name].dispatched.next()
            assert work.envelope.bindings["write"].replica == partner


async def test_a_draining_coordinator_refuses_what_is_new_and_fails_what_does_not_end(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path, abort_timeout=0.2) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
        anyio.create_task_group() as tasks,
    ):
        await gateway.until_ready("solo")
        ends, hangs = gateway.submit(asking()), gateway.submit(asking())
        await ends.admitted()
        await hangs.admitted()
        tasks.start_soon(running.process.drain, Deadline.after(0.5))
        await gateway.until("solo", lambda status: not status.ready)
        refusal = await gateway.submit(asking()).failed()
        assert refusal.reason is Reason.STAGE_UNAVAILABLE
        stage.complete((await stage.dispatched.next()).key, DONE)
        await ends.finished()
        assert (await hangs.failed()).reason is Reason.STAGE_UNAVAILABLE
        await running.idle()


async def test_a_request_leaves_nothing_behind_however_it_ends(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        for ending in ("complete", "fail", "cancel", "deadline"):
            ticket = gateway.submit(asking(), remaining=0.05 if ending == "deadline" else PATIENCE)
            await ticket.admitted()
            work = await stage.dispatched.next()
            if ending == "complete":
                stage.complete(work.key, DONE)
            elif ending == "fail":
                stage.fail(work.key, OmniError(Reason.CONTEXT_TOO_LONG, "Too long.", param="messages"))
            elif ending == "cancel":
                ticket.cancel()
            await ticket.notices.next()
            await running.idle()
            (replica,) = running.coordinator.state("solo").stages["echo"]
            assert (replica.outstanding, running.coordinator.live, running.coordinator.media.held) == (0, 0, 0)
