"""A mesh whose thinker is spread over two processes says what the whole model says, and outlives either of them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest
from tests.parity.cases import CASES, Draw, request
from tests.parity.conftest import Expected
from tests.parity.over_http import Heard, Served, body, spoken
from tests.parity.test_mesh import answer, assert_same
from tests.running import failure_of, strict_client
from transformers import AutoTokenizer

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import Wishes
from omni_cli.serving import serve

# Two interpreters more than other meshes, each with imports of its own.
pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(240)]

GREEDY = Draw(None)
THINKER = "qwen3-omni-thinker-0"
LONG = 1500


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture(scope="module")
async def spread(tiny: Path, anyio_backend: str) -> AsyncIterator[Served]:
    said: list[str] = []
    wishes = Wishes(
        (serve("qwen3-omni", tiny),), port=free_port("127.0.0.1"), device="cpu", tp={"thinker": 2}, drain="1s"
    )
    async with open_mesh(wishes, say=said.append, verbose=False) as mesh:
        await mesh.until_ready()
        async with strict_client(mesh.url) as client:
            yield Served(mesh, client, said)


def thinker(served: Served) -> psutil.Process:
    return psutil.Process(served.mesh.supervisor.running()[THINKER])


def follower(served: Served) -> psutil.Process:
    (one,) = thinker(served).children()
    assert "omni_stage.tensor_parallel.follower" in one.cmdline()
    return one


async def gone(process: psutil.Process) -> None:
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(process.wait)


async def writing(served: Served, asked: Mapping[str, Any]) -> Any:
    """The stream, once it has begun."""
    stream = await served.open(asked)
    heard = Heard()
    async for chunk in stream:
        heard.take(chunk)
        if heard.text:
            break
    return stream


async def test_eight_requests_at_once_are_answered_as_by_the_whole_model(
    spread: Served, expected: Expected, tokenizer: Any
) -> None:
    heard: dict[str, Heard] = {}

    async def ask(case: str) -> None:
        heard[case] = await answer(spread, case, GREEDY, streamed=True)

    async with anyio.create_task_group() as callers:
        for case in CASES:
            callers.start_soon(ask, case)
    for case in CASES:
        assert_same(heard[case], expected.of(case, GREEDY), tokenizer)


async def test_what_is_known_of_a_prompt_is_known_to_both_ranks(
    spread: Served, expected: Expected, tokenizer: Any
) -> None:
    for _ in range(2):
        heard = await answer(spread, "image, audio and video", GREEDY, streamed=False)
        assert_same(heard, expected.of("image, audio and video", GREEDY), tokenizer)
    assert heard.usage is not None
    assert heard.usage.prompt_tokens_details is not None
    assert heard.usage.prompt_tokens_details.cached_tokens


async def test_a_caller_who_leaves_midway_leaves_nothing_and_the_next_is_answered_right(
    spread: Served, expected: Expected, tokenizer: Any
) -> None:
    stream = await writing(spread, body(request("text", GREEDY), max_completion_tokens=LONG))
    await stream.close()
    await spread.until_idle()
    assert_same(await answer(spread, "image", GREEDY, streamed=True), expected.of("image", GREEDY), tokenizer)


@pytest.mark.parametrize("rank", [1, 0], ids=["the follower", "rank 0"])
async def test_a_rank_that_is_killed_ends_both_and_a_new_replica_comes(
    rank: int, spread: Served, expected: Expected, tokenizer: Any
) -> None:
    ranks = [thinker(spread), follower(spread)]

    async def ask() -> None:
        async for _ in await writing(spread, spoken(request("text", GREEDY), "pcm16", max_completion_tokens=LONG)):
            if not killed.is_set():
                os.kill(ranks[rank].pid, signal.SIGKILL)
                killed.set()

    killed = anyio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(spread.mesh.until_ready_again)
            failure = await failure_of(ask)
            for process in ranks:
                await gone(process)
    assert getattr(failure, "code", failure) == "stage_unavailable"
    how = "was ended by SIGKILL" if rank == 0 else "ended"
    assert any(line.startswith(f"{THINKER} {how}") for line in spread.said), spread.said
    assert not {one.pid for one in ranks} & {thinker(spread).pid, follower(spread).pid}
    assert_same(await answer(spread, "text", GREEDY, streamed=True), expected.of("text", GREEDY), tokenizer)
    await spread.until_idle()
