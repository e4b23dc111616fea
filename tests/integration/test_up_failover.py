"""`omni up` with two replicas of a stage, one of which dies or hangs under a request: its caller does not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.up_process import Up, say, up
from tests.parity.over_http import Heard

from omni_cli.launcher.state import newest_state
from omni_common.clock import monotonic

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]

# Several megabytes of speech: more than the sockets between the mesh and its caller hold.
WORDS = " ".join(f"word{number}" for number in range(1500))
PATIENCE = 40


@dataclass(frozen=True, slots=True)
class Served:
    mesh: Up
    client: openai.AsyncOpenAI
    metrics: Mapping[str, str]
    """By process."""

    async def value(self, name: str, *, of: str = "coordinator-0", **labels: str) -> float:
        async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
            families = text_string_to_metric_families((await http.get(self.metrics[of])).text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def until(self, at_least: float, name: str, **labels: str) -> None:
        with anyio.fail_after(PATIENCE):
            while await self.value(name, **labels) < at_least:
                pass

    async def open(self) -> openai.AsyncStream[ChatCompletionChunk]:
        return await self.client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": WORDS}],
            modalities=["text", "audio"],
            audio={"voice": "low", "format": "pcm16"},
            stream=True,
        )

    async def undisturbed(self) -> Heard:
        return await read(await self.open(), Heard())

    async def busy(self, stage: str) -> str:
        """The replica of the stage that serves a request."""
        with anyio.fail_after(PATIENCE):
            while True:
                for number in range(2):
                    name = f"echo-{stage}-{number}"
                    if await self.value("omni_stage_live_requests", of=name, stage=stage):
                        return name

    def signal(self, replica: str, number: signal.Signals) -> None:
        os.kill(self.mesh.children()[replica].pid, number)


async def read(stream: openai.AsyncStream[ChatCompletionChunk], heard: Heard, *, until_speech: bool = False) -> Heard:
    with anyio.fail_after(PATIENCE):
        async for chunk in stream:
            heard.take(chunk)
            if until_speech and heard.speech and heard.text:
                break
    return heard


@asynccontextmanager
async def serving(run: Path, *options: str) -> AsyncIterator[Served]:
    async with up(run, *options) as mesh:
        await mesh.ready()
        state = newest_state(run)
        assert state is not None
        metrics = {process.name: f"http://{process.metrics}/metrics" for process in state.processes}
        async with mesh.client() as client:
            yield Served(mesh, client, metrics)
        assert await mesh.stop(signal.SIGTERM) == 0


def same(one: Heard, other: Heard) -> bool:
    return (one.text, one.speech, one.finish) == (other.text, other.speech, other.finish)


async def test_a_replica_that_dies_before_an_answer_or_in_its_midst_is_not_noticed(tmp_path: Path) -> None:
    async with serving(tmp_path, "--replicas", "say=2") as served:
        # The first by name gets the first request; it hangs, so that it makes nothing before it dies.
        served.signal("echo-say-0", signal.SIGSTOP)
        said: list[str] = []

        async def ask() -> None:
            said.append(await say(served.mesh, "hello again"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await served.until(1, "omni_live_requests", pipeline="echo")
            killed = monotonic()
            served.signal("echo-say-0", signal.SIGKILL)
        assert monotonic() - killed < 2
        assert [text.lower().split() for text in said] == [["hello", "again"]]
        assert await served.value("omni_failovers_total", stage="say", outcome="rerun") == 1

        await served.mesh.until(r"Every stage is ready again\.")
        whole = await served.undisturbed()
        stream, heard = await served.open(), Heard()
        await read(stream, heard, until_speech=True)
        served.signal(await served.busy("say"), signal.SIGKILL)
        await read(stream, heard)
        assert same(heard, whole)
        assert await served.value("omni_failovers_total", stage="say", outcome="resumed") == 1


async def test_a_replica_that_hangs_is_given_up_and_delivers_nothing_twice_when_it_wakes(tmp_path: Path) -> None:
    async with serving(tmp_path, "--replicas", "beep=2") as served:
        whole = await served.undisturbed()
        stream, heard = await served.open(), Heard()
        await read(stream, heard, until_speech=True)
        hangs = await served.busy("beep")
        served.signal(hangs, signal.SIGSTOP)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, stream, heard)
            await served.until(1, "omni_failovers_total", stage="beep", outcome="resumed")
            served.signal(hangs, signal.SIGCONT)
        assert same(heard, whole)
        await served.until(2, "omni_ready_replicas", stage="beep")
        assert same(await served.undisturbed(), whole)
        assert await served.value("omni_requests_total", outcome="completed") == 3


async def test_the_only_replica_that_dies_ends_an_answer_with_one_error(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        stream, heard = await served.open(), Heard()
        await read(stream, heard, until_speech=True)
        killed = monotonic()
        served.signal("echo-say-0", signal.SIGKILL)
        with pytest.raises(openai.APIError) as raised:
            await read(stream, heard)
        assert monotonic() - killed < PATIENCE
        assert raised.value.code == "stage_unavailable"
        assert await served.value("omni_failovers_total", stage="say", outcome="no_replica") == 1
        await served.mesh.until(r"Every stage is ready again\.")
        assert (await say(served.mesh, "hello again")).lower().split() == ["hello", "again"]
