"""The coordinator as the process that it is in a mesh."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from tests.integration.coordinator_process import SOLO, asking

from omni_common.errors import Reason
from omni_common.request import FinishReason, TerminalResult, Usage
from omni_common.testing.gateway import fake_gateway
from omni_common.testing.mail import PATIENCE
from omni_common.testing.stage import Place, fake_stage

pytestmark = pytest.mark.anyio

DONE = TerminalResult(FinishReason.STOP, Usage())


@asynccontextmanager
async def process(folder: Path, **settings: str) -> AsyncIterator[tuple[anyio.abc.Process, str]]:
    """A coordinator process and the address where it listens."""
    pipeline = folder / "solo.json"
    pipeline.write_text(SOLO.model_dump_json())
    env = {"OMNI_COORDINATOR_BIND": "127.0.0.1:0", "OMNI_COORDINATOR_PIPELINES": str(pipeline)}
    env |= {f"OMNI_COORDINATOR_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "omni_coordinator"]
    async with await anyio.open_process(command, env=env, stdout=subprocess.DEVNULL) as running:
        assert running.stderr is not None
        log = BufferedByteReceiveStream(running.stderr)
        async with anyio.create_task_group() as tasks:
            try:
                port = await _listening(log)
                tasks.start_soon(_read_on, log)
                yield running, f"127.0.0.1:{port}"
            finally:
                if running.returncode is None:
                    running.kill()
                tasks.cancel_scope.cancel()


async def _listening(log: BufferedByteReceiveStream) -> int:
    with anyio.fail_after(PATIENCE):
        while True:
            record = json.loads(await log.receive_until(b"\n", 1 << 16))
            if record["msg"] == "listening":
                return int(record["port"])


async def _read_on(log: BufferedByteReceiveStream) -> None:
    async for _ in log:  # else a full pipe would stop the process
        pass


async def test_on_sigterm_live_requests_finish_new_ones_are_refused_and_the_process_ends_with_0(tmp_path: Path) -> None:
    async with (
        process(tmp_path, DRAIN="20s") as (running, address),
        fake_stage(address, Place("solo", "echo"), scripts=None) as stage,
        fake_gateway(address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking())
        await ticket.admitted()
        running.send_signal(signal.SIGTERM)
        await gateway.until("solo", lambda status: not status.ready)
        assert (await gateway.submit(asking()).failed()).reason is Reason.STAGE_UNAVAILABLE
        stage.complete((await stage.dispatched.next()).key, DONE)
        assert await ticket.finished() == DONE
        with anyio.fail_after(PATIENCE):
            assert await running.wait() == 0


async def test_a_request_that_does_not_end_in_time_is_failed_before_the_process_ends(tmp_path: Path) -> None:
    async with (
        process(tmp_path, DRAIN="500ms", ABORT_TIMEOUT="200ms") as (running, address),
        fake_stage(address, Place("solo", "echo"), scripts=None) as stage,
        fake_gateway(address) as gateway,
    ):
        await gateway.until_ready("solo")
        ticket = gateway.submit(asking())
        await ticket.admitted()
        running.send_signal(signal.SIGTERM)
        assert (await ticket.failed()).reason is Reason.STAGE_UNAVAILABLE
        await stage.aborted.next()
        with anyio.fail_after(PATIENCE):
            assert await running.wait() == 0
