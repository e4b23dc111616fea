"""The echo pipeline with stages that share a process: they hand each other values, and nothing else is different."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import REGISTRY
from tests.integration.mesh import Layout, mesh, say
from tests.integration.mesh_requests import LONG, answer, ask, ended

from omni_common.deadline import Deadline
from omni_common.errors import OmniError, Reason
from omni_common.lifecycle import CannotStart, Lifecycle
from omni_common.request import Media, Modality, TerminalResult
from omni_common.telemetry.names import Transport
from omni_common.testing.gateway import Piece
from omni_stage.models import load_pipeline_config
from omni_stage.process import StageProcess
from omni_stage.settings import StageSettings

pytestmark = pytest.mark.anyio

ALL = tuple(stage.name for stage in load_pipeline_config("echo").stages)
FRONT, BACK = ALL[:4], ALL[4:]
LAYOUTS = [
    pytest.param([ALL], {}, id="all in one"),
    pytest.param([FRONT, BACK], dict.fromkeys(BACK, "elsewhere"), id="two processes in two pods"),
    pytest.param([("split", "join"), ("say", "beep")], {"count": "elsewhere"}, id="some"),
]


def sent(edge: str, transport: str) -> float:
    """Bytes."""
    return REGISTRY.get_sample_value("omni_edge_bytes_total", {"edge": edge, "transport": transport}) or 0.0


@pytest.mark.parametrize(("together", "pods"), LAYOUTS)
async def test_large_media_cross_every_edge_unharmed(
    tmp_path: Path, together: Sequence[Sequence[str]], pods: dict[str, str]
) -> None:
    file = Media(Modality.AUDIO, bytes(range(256)) * 8 * 1024)
    async with mesh(tmp_path, Layout(together=together, pods=pods)) as made:
        text, audio, result = await ask(made, "look", file, spoken=True)
        assert str(len(file.data)) in text
        assert audio
        assert {report.stage for report in result.reports} == {*ALL}
        await made.until_idle()


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


async def test_many_requests_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(together=[ALL], replicas=dict.fromkeys(ALL, 2))) as made:
        tickets = {f"word{n} again": made.gateway.submit(say(f"word{n} again", spoken=True)) for n in range(32)}
        for text, ticket in tickets.items():
            said, audio, _ = await answer(ticket)
            assert said.split() == text.upper().split()
            assert len(audio) == 2 * 1920 * 2
        await made.until_idle()


async def test_a_caller_that_does_not_read_stops_the_work_until_it_reads(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(together=[ALL], changes={"write": {"credits": 4}})) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=3)
        await ticket.admitted()
        pieces = [await ticket.piece() for _ in range(3)]
        other, _, _ = await ask(made, "others go on")
        assert other.split() == ["OTHERS", "GO", "ON"]
        assert ticket.notices.waiting == 0
        ticket.read(text=1000)
        while isinstance(notice := await ticket.notices.next(), Piece):
            pieces.append(notice)
        assert isinstance(notice, TerminalResult)
        assert [piece.index for piece in pieces] == list(range(len(pieces)))
        assert len(pieces) >= 400
        await made.until_idle()


@pytest.mark.parametrize(("together", "pods"), LAYOUTS)
async def test_aborts_at_every_moment_leave_nothing_behind(
    tmp_path: Path, together: Sequence[Sequence[str]], pods: dict[str, str]
) -> None:
    async with mesh(tmp_path, Layout(together=together, pods=pods)) as made:
        file = Media(Modality.IMAGE, bytes(300_000))
        for turns in range(0, 120, 3):
            ticket = made.gateway.submit(say("a few words to say", file, spoken=True))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            ticket.cancel()
        await made.until_idle(within=5.0)
        text, _, _ = await ask(made, "still here")
        assert text.split() == ["STILL", "HERE"]


async def test_a_deadline_ends_a_request_that_nobody_reads(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(together=[ALL])) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=1, remaining=0.3)
        await ticket.admitted()
        await ticket.piece()
        assert (await ticket.failed()).reason is Reason.DEADLINE_EXCEEDED
        await made.until_idle(within=5.0)


async def test_a_lost_process_fails_its_requests_and_no_others(tmp_path: Path) -> None:
    name = ",".join(BACK)
    async with mesh(tmp_path, Layout(together=[BACK], replicas=dict.fromkeys(BACK, 2))) as made:
        tickets = [made.gateway.submit(say(LONG), output_credits=2) for _ in range(6)]
        for ticket in tickets:
            await ticket.admitted()
            await ticket.piece()
        with anyio.fail_after(4.0):
            await made.stages[f"{name}-0"].kill()
        del made.stages[f"{name}-0"]
        ends = [await ended(ticket) for ticket in tickets]
        lost = [end for end in ends if isinstance(end, OmniError)]
        assert {end.reason for end in lost} == {Reason.STAGE_UNAVAILABLE}
        assert lost
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
