"""Two stage processes that hand each other tensors from GPU to GPU, whole but for the GPUs: gloo stands in for NCCL,
and files for memory that two processes open (see `tests.unit.stage.gpus`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import torch
from tests.integration.gpu_family.config import PIPELINE
from tests.integration.gpu_family.stages import expected
from tests.integration.mesh import Running, say
from tests.integration.mesh_requests import ended
from tests.lab.readable import readable
from tests.relay_process import RelayProcess, running_relay
from tests.unit.stage.gpus import HERE, THERE
from tests.unit.stage.pair_process import HANGING

from omni_common.errors import OmniError, Reason
from omni_common.request import TerminalResult, TextOutput
from omni_common.testing.gateway import FakeGateway, Piece, Ticket, fake_gateway
from omni_common.testing.mail import PATIENCE
from omni_coordinator.service import CoordinatorProcess
from omni_coordinator.settings import CoordinatorSettings

pytestmark = pytest.mark.anyio

START = 6 * PATIENCE  # seconds; a loaded machine takes its time to import torch
ROOT = Path(__file__).parents[2]
LENGTH = 70_000
_SENT = re.compile(r'^omni_edge_transfers_total{edge="make>check",transport="(\w+)"} (\S+)$', re.M)
_RETRIES = re.compile(r'^omni_edge_retries_total{edge="make>check",transport="(\w+)"} (\S+)$', re.M)


class StageOfTwo(RelayProcess):
    """One of the two, as a process."""

    def heard(self, line: str) -> None:
        """Waits for what it says beside its log."""
        out = self.process.stdout  # type: ignore[attr-defined]
        assert readable(out, PATIENCE), f"never said {line}"
        assert out.readline().strip() == line

    def page(self, series: re.Pattern[str]) -> Mapping[str, float]:
        port = self.logged("metrics are served")["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as reply:
            return {found[1]: float(found[2]) for found in series.finditer(reply.read().decode())}


class Two:
    """A mesh of both stages, in one pod."""

    def __init__(self, folder: Path, coordinator: str, gateway: FakeGateway, ending: ExitStack) -> None:
        self._folder = folder
        self._coordinator = coordinator
        self._ending = ending
        self.gateway = gateway

    async def start(self, stage: str, gpu: str, life: int = 0) -> StageOfTwo:
        """Returns when it serves."""
        running = self._start(stage, gpu, life)
        await anyio.to_thread.run_sync(running.logged, "serving", START)
        return running

    async def start_both(self, make_on: str, check_on: str) -> dict[str, StageOfTwo]:
        """Each on its GPU; make has been told who is there."""
        started: dict[str, StageOfTwo] = {}

        async def start(stage: str, gpu: str) -> None:
            started[stage] = await self.start(stage, gpu)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start, "make", make_on)
            tasks.start_soon(start, "check", check_on)
        await self.gateway.until_ready(PIPELINE.name)
        await self.check(1)
        return started

    def submit(self, count: int, length: int = LENGTH) -> Ticket:
        return self.gateway.submit(say(f"{count} {length}", model=PIPELINE.name), remaining=60)

    async def check(self, count: int, length: int = LENGTH) -> None:
        """All of them come whole and in order."""
        ticket = self.submit(count, length)
        await ticket.admitted()
        assert await read(ticket) == expected(count, length)

    def _start(self, stage: str, gpu: str, life: int) -> StageOfTwo:
        settings = {
            "FAMILY": "gpus",
            "STAGE": stage,
            "REPLICA": f"{stage}-{life}",
            "POD": "pod",
            "BIND": "127.0.0.1:0",
            "COORDINATORS": self._coordinator,
            "ARENA": str(self._folder),
            "INLINE_LIMIT": "1000",
            "METRICS_PORT": "0",
            "DRAIN": "20s",
        }
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment |= {f"OMNI_STAGE_{name}": value for name, value in settings.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.gpu_stage", gpu],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ending.enter_context(process)
        running = StageOfTwo(process)
        self._ending.callback(running.ended)
        self._ending.callback(process.kill)
        return running


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[Two]:
    pod, pipeline = folder / "pod", folder / "pipeline.json"
    pod.mkdir()
    pipeline.write_text(PIPELINE.model_dump_json())
    with ExitStack() as ending:
        await anyio.to_thread.run_sync(ending.enter_context, running_relay(pod, ARENA_SIZE="32MiB", EXTENT_SIZE="1MiB"))
        async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
            coordinator = CoordinatorProcess(CoordinatorSettings(bind="127.0.0.1:0", pipelines=(str(pipeline),)))
            running = Running(coordinator)
            tasks.start_soon(running.run)
            with anyio.fail_after(PATIENCE):
                while not running.lifecycle.started:  # noqa: ASYNC110
                    await anyio.sleep(0.005)
            address = f"127.0.0.1:{coordinator.port}"
            gateway = await stack.enter_async_context(fake_gateway(address))
            yield Two(pod, address, gateway, ending)
            await stack.aclose()
            await running.kill()


async def read(ticket: Ticket, first: Piece | None = None, *, may_fail: Reason | None = None) -> str:
    """What a request that was admitted is answered."""
    text, notice = "", first or await ticket.notices.next()
    while isinstance(notice, Piece):
        assert isinstance(notice.output, TextOutput)
        text += notice.output.text
        ticket.read(text=1)
        notice = await ticket.notices.next()
    failed = isinstance(notice, OmniError) and notice.reason is may_fail
    assert failed or isinstance(notice, TerminalResult), repr(notice)
    return text


async def until_nothing_is_left(folder: Path) -> None:
    """Nobody has memory of the other's open, or may open it yet."""
    with anyio.fail_after(PATIENCE):
        while (folder / "pod" / "gpu").exists() and list((folder / "pod" / "gpu").iterdir()):  # noqa: ASYNC110
            await anyio.sleep(0.01)


def needs(gpus: int) -> Sequence[pytest.MarkDecorator]:
    return pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < gpus, reason=f"it takes {gpus} GPUs")


@pytest.mark.parametrize(
    ("make_on", "check_on", "transport"),
    [
        pytest.param(HERE, THERE, "nccl", id="two GPUs that are none"),
        pytest.param(HERE, HERE, "cuda_ipc", id="one GPU that is none"),
        pytest.param("cuda:0", "cuda:1", "nccl", id="two GPUs", marks=needs(2)),
        pytest.param("cuda:0", "cuda:0", "cuda_ipc", id="one GPU", marks=needs(1)),
    ],
)
async def test_tensors_come_whole_and_in_order_and_the_last_ones_are_waited_for(
    tmp_path: Path, make_on: str, check_on: str, transport: str
) -> None:
    async with two(tmp_path) as mesh:
        make = (await mesh.start_both(make_on, check_on))["make"]
        before = await anyio.to_thread.run_sync(make.page, _SENT)
        async with anyio.create_task_group() as tasks:
            for length in (LENGTH, 200_000, 300_000):
                tasks.start_soon(mesh.check, 20, length)
        sent = await anyio.to_thread.run_sync(make.page, _SENT)
        assert sent[transport] - before.get(transport, 0) == 60
        last = mesh.submit(30)
        await last.admitted()
        begun = await last.piece()  # make has it
        make.process.send_signal(signal.SIGTERM)
        # The coordinator fails a request that is not over when one of its replicas leaves, though that is done with it.
        text = await read(last, begun, may_fail=Reason.STAGE_UNAVAILABLE)
        assert expected(30, LENGTH).startswith(text)
        assert await anyio.to_thread.run_sync(make.ended) == 0
        await until_nothing_is_left(tmp_path)


@pytest.mark.parametrize("dying", ["make", "check"])
async def test_who_dies_in_the_middle_of_a_transfer_takes_its_requests_along_and_nothing_else(
    tmp_path: Path, dying: str
) -> None:
    async with two(tmp_path) as mesh:
        stages = await mesh.start_both(HERE, THERE)
        hanging = mesh.submit(1, HANGING)
        await hanging.admitted()
        await anyio.to_thread.run_sync(stages["make"].heard, "hanging")
        stages[dying].process.kill()
        assert isinstance(await ended(hanging), OmniError)
        await anyio.to_thread.run_sync(stages[dying].ended)
        stages[dying] = await mesh.start(dying, HERE if dying == "make" else THERE, life=1)
        await mesh.gateway.until(PIPELINE.name, lambda status: f"{dying}-1" in str(status) and status.ready)
        await mesh.check(1)
        await mesh.check(20)
        sent = await anyio.to_thread.run_sync(stages["make"].page, _SENT)
        assert sent["nccl"] >= 20


async def test_a_request_that_ends_in_the_middle_of_a_transfer_or_hangs_there_holds_up_nobody_for_long(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as mesh:
        make = (await mesh.start_both(HERE, THERE))["make"]
        aborted = mesh.submit(1, HANGING)
        await aborted.admitted()
        await anyio.to_thread.run_sync(make.heard, "hanging")
        aborted.cancel()
        assert isinstance(await ended(aborted), OmniError)
        await mesh.check(3)  # behind it, and then another way
        retries = await anyio.to_thread.run_sync(make.page, _RETRIES)
        assert retries["grpc"] >= 1
        await mesh.check(1, HANGING)  # by the host: the pair has a rest
