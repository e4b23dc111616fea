"""The echo pipeline over a whole mesh in one process: what requests meet on their way, well or ill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.integration.layouts import A_PROCESS_EACH, ALL, ONE_OR_MANY, SHARED_PROCESSES
from tests.integration.mesh import Layout, mesh, say
from tests.integration.mesh_requests import DIVERSE, LONG, answer, ask, failovers, rest

from omni_common.clock import monotonic
from omni_common.errors import OmniError, Reason
from omni_common.request import FinishReason, Media, Modality, TerminalResult
from omni_common.testing.gateway import Piece

pytestmark = pytest.mark.anyio


async def test_text_comes_back_and_only_the_text_terminal_runs(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        text, audio, result = await ask(made, "hello mesh")
        assert (text.split(), audio) == (["HELLO", "MESH"], b"")
        assert result.finish_reason is FinishReason.STOP
        assert "beep" not in {report.stage for report in result.reports}
        await made.until_idle()


async def test_speech_comes_back_beside_the_text(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        text, audio, result = await ask(made, "hello mesh", spoken=True)
        assert text.split() == ["HELLO", "MESH"]
        assert len(audio) == 2 * 1920 * 2
        assert {report.stage for report in result.reports} >= {"split", "join", "say", "write", "beep"}
        await made.until_idle()


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(Layout(), id="through the arena"),
        pytest.param(Layout(arena=False), id="without an arena"),
        pytest.param(Layout(pods={"count": "elsewhere", "join": "third"}), id="between pods"),
        *SHARED_PROCESSES,
    ],
)
async def test_large_media_cross_every_edge_unharmed(tmp_path: Path, layout: Layout) -> None:
    file = Media(Modality.AUDIO, bytes(range(256)) * 8 * 1024)
    async with mesh(tmp_path, layout) as made:
        text, audio, result = await ask(made, "look", file, spoken=True)
        assert str(len(file.data)) in text
        assert audio
        assert {report.stage for report in result.reports} == {*ALL}
        await made.until_idle()


async def test_reports_count_from_admission_in_the_order_of_the_graph(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        _, _, result = await ask(made, "one two three")
        at = {report.stage: report for report in result.reports}
        assert 0 <= at["split"].first_input <= at["split"].end
        assert at["split"].end <= at["say"].first_output <= at["write"].end


@pytest.mark.parametrize("layout", ONE_OR_MANY)
async def test_many_requests_at_once_each_get_their_own_answer(tmp_path: Path, layout: Layout) -> None:
    replicas = dict.fromkeys(ALL, 2) if layout.together else {"say": 2}
    async with mesh(tmp_path, replace(layout, replicas=replicas)) as made:
        tickets = {f"word{n} again": made.gateway.submit(say(f"word{n} again", spoken=True)) for n in range(32)}
        for text, ticket in tickets.items():
            said, audio, _ = await answer(ticket)
            assert said.split() == text.upper().split()
            assert len(audio) == 2 * 1920 * 2
        await made.until_idle()


async def test_two_coordinators_share_the_stages(tmp_path: Path) -> None:
    async with mesh(tmp_path, Layout(coordinators=2)) as made:
        tickets = [gateway.submit(say(f"gateway {n}")) for n, gateway in enumerate(made.gateways)]
        assert [(await answer(ticket))[0].split() for ticket in tickets] == [["GATEWAY", "0"], ["GATEWAY", "1"]]
        await made.until_idle()


@pytest.mark.parametrize("layout", ONE_OR_MANY)
async def test_a_caller_that_does_not_read_stops_the_work_until_it_reads(tmp_path: Path, layout: Layout) -> None:
    async with mesh(tmp_path, replace(layout, changes={"write": {"credits": 4}})) as made:
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


async def test_an_abort_in_mid_stream_leaves_nothing_behind(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        ticket = made.gateway.submit(say(LONG, spoken=True), output_credits=4)
        await ticket.admitted()
        await ticket.piece()
        ticket.cancel()
        while isinstance(notice := await ticket.notices.next(), Piece):
            pass
        assert isinstance(notice, OmniError)
        assert notice.reason is Reason.CANCELLED
        await made.until_idle(within=2.0)


@pytest.mark.parametrize("layout", [A_PROCESS_EACH, *SHARED_PROCESSES])
async def test_aborts_at_every_moment_leave_nothing_behind(tmp_path: Path, layout: Layout) -> None:
    async with mesh(tmp_path, layout) as made:
        file = Media(Modality.IMAGE, bytes(300_000))
        for turns in range(0, 120, 3):
            ticket = made.gateway.submit(say("a few words to say", file, spoken=True))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            ticket.cancel()
        await made.until_idle(within=5.0)
        text, _, _ = await ask(made, "still here")
        assert text.split() == ["STILL", "HERE"]


async def test_a_gateway_that_vanishes_takes_its_requests_along(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=2)
        await ticket.admitted()
        await ticket.piece()
        made.gateway.end()
        await made.until_idle(within=5.0)


@pytest.mark.parametrize(
    ("stage", "layout"),
    [
        pytest.param("split", Layout(replicas={"split": 2}), id="where the request began"),
        pytest.param("say", Layout(replicas={"say": 2}), id="of a stage in the middle"),
        pytest.param("beep", Layout(replicas={"beep": 2}), id="of a terminal stage"),
        pytest.param("say", Layout(replicas={"say": 2}, arena=False, inline_limit=0), id="with tensors beside frames"),
    ],
)
async def test_requests_go_on_elsewhere_when_a_replica_is_lost(tmp_path: Path, stage: str, layout: Layout) -> None:
    file = Media(Modality.IMAGE, bytes(range(256)) * 600)
    async with mesh(tmp_path, layout) as made:
        text, audio, _ = await ask(made, DIVERSE, file, spoken=True)
        before = failovers("resumed")
        tickets = [made.gateway.submit(say(DIVERSE, file, spoken=True), output_credits=4) for _ in range(4)]
        begun = []
        for ticket in tickets:
            await ticket.admitted()
            begun.append(await ticket.piece())
        with anyio.fail_after(4.0):
            await made.stages[f"{stage}-0"].kill()
        del made.stages[f"{stage}-0"]
        for ticket, piece in zip(tickets, begun, strict=True):
            assert (await rest(ticket, piece))[:2] == (text, audio)
        await made.until_idle(within=5.0)
        assert failovers("resumed") - before == 2
        made.start_stage(stage, 2)
        await made.gateway.until("echo", made.complete)
        assert (await ask(made, "as new"))[0].split() == ["AS", "NEW"]


async def test_the_last_replica_that_is_lost_fails_its_requests_at_once_whoever_reads(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        tickets = [made.gateway.submit(say(LONG), output_credits=2) for _ in range(3)]
        for ticket in tickets:
            await ticket.admitted()
            await ticket.piece()
        killed = monotonic()
        with anyio.fail_after(4.0):
            await made.stages["say-0"].kill()
        del made.stages["say-0"]
        for ticket in tickets:
            while isinstance(notice := await ticket.notices.next(), Piece):
                pass
            assert isinstance(notice, OmniError)
            assert notice.reason is Reason.STAGE_UNAVAILABLE
        assert monotonic() - killed < 2
        await made.until_idle(within=5.0)
        made.start_stage("say", 2)
        await made.gateway.until("echo", made.complete)
        text, _, _ = await ask(made, "as new")
        assert text.split() == ["AS", "NEW"]


@pytest.mark.parametrize("layout", ONE_OR_MANY)
async def test_a_deadline_ends_a_request_that_nobody_reads(tmp_path: Path, layout: Layout) -> None:
    async with mesh(tmp_path, layout) as made:
        ticket = made.gateway.submit(say(LONG), output_credits=1, remaining=1.5)
        await ticket.admitted()
        await ticket.piece()
        error = await ticket.failed()
        assert error.reason is Reason.DEADLINE_EXCEEDED
        await made.until_idle(within=5.0)
