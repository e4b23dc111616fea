"""The echo pipeline with stages that share a process: they hand each other values, and nothing else is different."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import REGISTRY
from tests.integration.layouts import ALL, BACK
from tests.integration.mesh import Layout, mesh, say
from tests.integration.mesh_requests import DIVERSE, LONG, ask, ended, failovers, rest

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.deadline import Deadline
from omni_common.lifecycle import CannotStart, Lifecycle
from omni_common.request import Media, Modality, TerminalResult
from omni_common.telemetry.names import Transport
from omni_stage.models import load_pipeline_config
from omni_stage.process import StageProcess
from omni_stage.settings import StageSettings

pytestmark = pytest.mark.anyio


def sent(edge: str, transport: str) -> float:
    """Bytes."""
    return REGISTRY.get_sample_value("omni_edge_bytes_total", {"edge": edge, "transport": transport}) or 0.0


@pytest.mark.parametrize(("together", "transport"), [([("split", "count")], "object"), ([], "arena")])
async def test_between_stages_of_a_process_tensors_are_objects(
    tmp_path: Path, together: Sequence[Sequence[str]], transport: str
) -> None:
    before = {way: sent("split>count", way) for way in Transport}
    async with mesh(tmp_path, Layout(together=together)) as made:
        await ask(made, "look", Media(Modality.AUDIO, bytes(500_000)))
        await made.until_idle()
    grown = {way: sent("split>count", way) - bytes_before for way, bytes_before in before.items()}
    assert {way: size for way, size in grown.items() if size} == {transport: 500_000}


async def test_requests_go_on_in_another_process_when_theirs_is_lost(tmp_path: Path) -> None:
    name = ",".join(BACK)
    async with mesh(tmp_path, Layout(together=[BACK], replicas=dict.fromkeys(BACK, 2))) as made:
        text, _, _ = await ask(made, DIVERSE)
        before = failovers("resumed")
        tickets = [made.gateway.submit(say(DIVERSE), output_credits=2) for _ in range(6)]
        begun = []
        for ticket in tickets:
            await ticket.admitted()
            begun.append(await ticket.piece())
        with anyio.fail_after(4.0):
            await made.stages[f"{name}-0"].kill()
        del made.stages[f"{name}-0"]
        for ticket, piece in zip(tickets, begun, strict=True):
            assert (await rest(ticket, piece))[0] == text
        assert failovers("resumed") > before
        await made.until_idle(within=5.0)
        made.start_stage(name, 2)
        await made.gateway.until("echo", made.complete)
        text, _, _ = await ask(made, "as new")
        assert text.split() == ["AS", "NEW"]


async def test_a_process_that_drains_lets_a_request_pass_through_all_of_its_stages(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(together=[ALL])) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=2)
        await ticket.admitted()
        await ticket.piece()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.process(f"{','.join(ALL)}-0").drain, Deadline.after(20))
            end = await ended(ticket)
        assert isinstance(end, TerminalResult)
        assert not any(made.leftovers().values())


async def test_no_process_that_drains_goes_before_what_is_bound_to_it_is_over(tmp_path: Path) -> None:
    """As in a pod that is to end, whose containers are told so all at once: the first stages of a request are done with
    it, the last ones have not heard of it, and the coordinator would fail it when one of them left."""
    gone: list[str] = []

    async def drain(name: str) -> None:
        await made.process(name).drain(Deadline.after(20))
        gone.append(name)

    async with mesh(tmp_path, Layout()) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=2)
        await ticket.admitted()
        await ticket.piece()
        async with anyio.create_task_group() as tasks:
            for stage in ALL:
                tasks.start_soon(drain, f"{stage}-0")
            await made.gateway.until("echo", all_drain)
            assert set(gone) <= {"beep-0"}  # it makes sound, which was not asked for
            end = await ended(ticket)
        assert isinstance(end, TerminalResult)
        assert sorted(gone) == sorted(f"{stage}-0" for stage in ALL)


def all_drain(status: pb.PipelineStatus) -> bool:
    phases = {replica.phase for stage in status.stages for replica in stage.replicas}
    return phases == {pb.STAGE_PHASE_DRAINING}


async def test_a_process_of_which_one_stage_cannot_start_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "whisper.json"
    file.write_text(load_pipeline_config("whisper").model_dump_json())
    settings = StageSettings(
        family="whisper",
        pipeline=file,
        stage="preprocess,transcribe,decode",
        replica="whisper-0",
        coordinators="127.0.0.1:1",
        bind="127.0.0.1:0",
        model=tmp_path,
    )
    with pytest.raises(ExceptionGroup) as raised, anyio.fail_after(20):
        await StageProcess(settings).run(Lifecycle())
    sentences, others = raised.value.split(CannotStart)
    assert sentences is not None
    assert others is None
