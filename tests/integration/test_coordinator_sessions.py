"""The streams of replicas and gateways themselves: their beginning, their misbehaviour, their end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.integration.coordinator_process import asking, running_coordinator

from omni.common.v1 import request_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from omni_common.errors import OmniError, Reason
from omni_common.request import FinishReason, RequestKey, TerminalResult, TextOutput, Usage
from omni_common.rpc.channel import open_channel
from omni_common.rpc.convert import render_key
from omni_common.rpc.frames import PeerStalled
from omni_common.rpc.session import client_session
from omni_common.testing.gateway import fake_gateway
from omni_common.testing.mail import PATIENCE
from omni_common.testing.stage import Place, fake_stage
from omni_coordinator.connect import GatewaySession

pytestmark = pytest.mark.anyio

DONE = TerminalResult(FinishReason.STOP, Usage())
SOLO_STAGE = Place("solo", "echo")


def causes(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in causes(inner)]
    return [error]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        pytest.param(replace(SOLO_STAGE, contract_version=99), Reason.UNSUPPORTED, id="another contract"),
        pytest.param(replace(SOLO_STAGE, pipeline="nobody"), Reason.INVALID_REQUEST, id="an unknown pipeline"),
        pytest.param(replace(SOLO_STAGE, stage="nobody"), Reason.INVALID_REQUEST, id="an unknown stage"),
        pytest.param(replace(SOLO_STAGE, address=""), Reason.INVALID_REQUEST, id="no address"),
        pytest.param(replace(SOLO_STAGE, capacity=0), Reason.INVALID_REQUEST, id="no capacity"),
    ],
)
async def test_a_replica_whose_hello_does_not_fit_is_refused(tmp_path: Path, place: Place, reason: Reason) -> None:
    async with running_coordinator(tmp_path) as running:
        with pytest.raises(BaseExceptionGroup) as refusal:
            async with fake_stage(running.address, place):
                pytest.fail("it was taken")
        assert [cause.reason for cause in causes(refusal.value) if isinstance(cause, OmniError)] == [reason]


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(pb.AttachRequest(), id="nothing"),
        pytest.param(pb.AttachRequest(events=[pb.StageEvent(load=pb.LoadReport())]), id="something else"),
    ],
)
async def test_a_replica_that_does_not_say_hello_first_is_refused(tmp_path: Path, frame: pb.AttachRequest) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        open_channel(running.address) as channel,
        client_session(CoordinatorServiceStub(channel).Attach()) as duplex,
    ):
        await duplex.write(frame)
        with pytest.raises(OmniError, match="first event is hello"):
            await duplex.read()


async def test_a_replica_that_comes_back_before_its_loss_was_noticed_takes_its_own_place(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_gateway(running.address) as gateway,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as former,
    ):
        await gateway.until_ready("solo")
        orphan = gateway.submit(asking())
        await orphan.admitted()
        async with fake_stage(running.address, SOLO_STAGE, scripts=[[DONE]]):
            with anyio.fail_after(PATIENCE):
                await former.detached.wait()
            assert (await orphan.failed()).reason is Reason.STAGE_UNAVAILABLE
            await gateway.until_ready("solo")
            ticket = gateway.submit(asking())
            await ticket.admitted()
            await ticket.finished()
            assert len(running.coordinator.state("solo").stages["echo"]) == 1


async def test_what_cannot_be_read_fails_its_request_and_not_the_stream(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        broken, sound = gateway.submit(asking()), gateway.submit(asking())
        await broken.admitted()
        await sound.admitted()
        first, second = await stage.dispatched.next(), await stage.dispatched.next()
        stage.raw(pb.StageEvent(key=render_key(first.key), output=request_pb2.Output(index=0)))
        assert (await broken.failed()).reason is Reason.INTERNAL
        stage.complete(second.key, DONE)
        await sound.finished()


async def test_events_of_requests_that_nobody_knows_are_dropped(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking())
        await ticket.admitted()
        key = (await stage.dispatched.next()).key
        stage.output(RequestKey("req_stranger"), 0, TextOutput("lost"))
        stage.complete(replace(key, attempt=1), DONE)
        stage.complete(key, DONE)
        await ticket.finished()


async def test_a_replica_cannot_end_a_request_that_is_bound_to_another(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as bound,
        fake_stage(running.address, replace(SOLO_STAGE, replica="r-1"), scripts=None) as other,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 2)
        ticket = gateway.submit(asking())
        await ticket.admitted()
        key = (await bound.dispatched.next()).key
        other.fail(key, OmniError(Reason.STAGE_FAILED, "Not mine to fail."))
        other.phase(pb.STAGE_PHASE_DRAINING)  # heard after it, since one replica's events keep their order
        await gateway.until("solo", lambda status: status.stages[0].ready_replicas == 1)
        bound.complete(key, DONE)
        await ticket.finished()


async def test_a_ticket_that_is_alive_cannot_be_used_again(tmp_path: Path) -> None:
    async def submit_twice(address: str) -> None:
        async with fake_gateway(address) as gateway:
            await gateway.until_ready("solo")
            ticket = gateway.submit(asking())
            await ticket.admitted()
            gateway.raw(pb.GatewayEvent(ticket=ticket.number, submit=pb.Submit()))
            with anyio.fail_after(PATIENCE):
                await gateway.gone.wait()

    async with running_coordinator(tmp_path) as running, fake_stage(running.address, SOLO_STAGE, scripts=None):
        with pytest.raises(BaseExceptionGroup) as refusal:
            await submit_twice(running.address)
        assert Reason.INVALID_REQUEST in [c.reason for c in causes(refusal.value) if isinstance(c, OmniError)]
        await running.idle()


class _Stuck:
    """A gateway that is connected and takes nothing."""

    async def read(self) -> pb.ConnectRequest | None:
        await anyio.sleep_forever()
        return None

    async def write(self, frame: pb.ConnectResponse) -> None:
        await anyio.sleep_forever()

    async def end(self) -> None: ...


async def test_a_gateway_that_takes_nothing_loses_its_session_before_memory_grows(tmp_path: Path) -> None:
    hello = pb.ConnectRequest(events=[pb.GatewayEvent(hello=pb.GatewayHello())])
    async with running_coordinator(tmp_path) as running:
        session = GatewaySession(running.coordinator, "stuck")
        lost: list[OmniError] = []

        async def run() -> None:
            with pytest.raises(PeerStalled) as stalled:
                await session.run(_Stuck(), hello)
            lost.append(stalled.value)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                for number in range(20_000):
                    session.notify(pb.GatewayNotice(ticket=number + 1, admitted=pb.Admitted(request_id="req_x")))
        assert lost


async def test_two_coordinators_serve_the_same_replica_and_each_owns_its_own_requests(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        running_coordinator(tmp_path / "a") as first,
        running_coordinator(tmp_path / "b") as second,
        fake_stage(first.address, SOLO_STAGE, scripts=[[DONE]]) as to_first,
        fake_stage(second.address, SOLO_STAGE, scripts=[[DONE]]) as to_second,
        fake_gateway(first.address) as one,
        fake_gateway(second.address) as other,
    ):
        for gateway, stage in ((one, to_first), (other, to_second)):
            await gateway.until_ready("solo")
            ticket = gateway.submit(asking())
            await ticket.admitted()
            await ticket.finished()
            assert (await stage.dispatched.next()).envelope.coordinator == stage.coordinator
        assert to_first.coordinator != to_second.coordinator
