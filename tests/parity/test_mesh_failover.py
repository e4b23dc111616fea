"""A whole mesh with two replicas of a stage, one of which is killed in the midst of an answer: the other goes on with
the same words and the same voice, whether or not the caller had set a seed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from tests.parity.cases import Draw, request
from tests.parity.over_http import Heard, Served, body, spoken
from tests.running import strict_client

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Wishes
from omni_cli.serving import serve

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]

FRAMES, TOKENS = 400, 1500  # seconds of work
STEPS = 4  # of 65536, by which the vocoder rounds otherwise where its pieces are cut otherwise


@pytest.fixture(scope="module")
async def served(tiny: Path, anyio_backend: str) -> AsyncIterator[Served]:
    said: list[str] = []
    wishes = Wishes(
        (serve("qwen3-omni", tiny),), port=free_port("127.0.0.1"), device="cpu", replicas={"talker": 2, "thinker": 2}
    )
    async with open_mesh(wishes, say=said.append, verbose=False) as mesh:
        await mesh.until_ready()
        async with strict_client(mesh.url) as client:
            yield Served(mesh, client, said)


def long_speech(**more: object) -> dict[str, Any]:
    """Drawn at random, with settings under which this talker does not fall silent."""
    talker = {"repetition_penalty": 1.0, "max_tokens": FRAMES}
    extra = {"stage_sampling": {"talker": talker}}
    asked = spoken(request("text", Draw(None)), "pcm16", max_completion_tokens=FRAMES, extra_body=extra, **more)
    return {**asked, "temperature": 1.0}


async def busy(served: Served, stage: str) -> str:
    """The replica that serves the one request."""
    with anyio.fail_after(20):
        while True:
            for name in served.mesh.supervisor.running():
                if name.startswith(f"qwen3-omni-{stage}-") and await serves(served, name, stage):
                    return name


async def serves(served: Served, replica: str, stage: str) -> bool:
    return f'omni_stage_live_requests{{stage="{stage}"}} 1.0' in await served.metrics(replica)


async def disturbed(served: Served, asked: dict[str, Any], stage: str) -> Heard:
    """The answer to one whose replica of the stage is killed once it has begun."""
    heard = Heard()
    async with await served.open(asked) as stream, anyio.create_task_group() as tasks:
        async for chunk in stream:
            heard.take(chunk)
            if heard.speech or ("audio" not in asked and heard.text):
                break
        tasks.start_soon(served.mesh.until_ready_again)
        os.kill(served.mesh.supervisor.running()[await busy(served, stage)], signal.SIGKILL)
        async for chunk in stream:
            heard.take(chunk)
    await served.until_idle()
    return heard


async def resumed(served: Served, stage: str) -> bool:
    page = await served.metrics("coordinator-0")
    return f'outcome="resumed",pipeline="qwen3-omni",stage="{stage}"}} 1.0' in page


async def test_an_answer_goes_on_in_another_talker_as_if_nothing_had_been(served: Served) -> None:
    with anyio.fail_after(100):
        whole = await served.streamed(long_speech(seed=7))
        heard = await disturbed(served, long_speech(seed=7), "talker")
        assert (heard.text, heard.finish) == (whole.text, whole.finish)
        mine, other = (np.frombuffer(answer.speech, "<i2").astype(int) for answer in (heard, whole))
        assert len(mine) == len(other)
        assert np.abs(mine - other).max() <= STEPS
        assert await resumed(served, "talker")


async def test_what_a_thinker_draws_at_random_another_draws_too_though_the_caller_has_set_no_seed(
    served: Served,
) -> None:
    asked = body(request("text", Draw(None)), max_completion_tokens=TOKENS, temperature=1.0)
    with anyio.fail_after(100):
        heard = await disturbed(served, asked, "thinker")
        assert heard.usage is not None
        assert (heard.finish, heard.usage.completion_tokens) == ("length", TOKENS)
        assert await resumed(served, "thinker")
