"""The ranks of a thinker, as real processes over gloo: they compute what one computes, and end together."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
import torch
from tests.running import failure_of

from omni_common.errors import StageUnavailable
from omni_common.lifecycle import CannotStart
from omni_common.request import GenerationParams, Modality, RequestKey, Sampling, Usage
from omni_stage.components.tensors import from_torch
from omni_stage.models import load_pipeline_config
from omni_stage.models.qwen3_omni.components.text_model import open_text_model
from omni_stage.models.qwen3_omni.components.thinker import ThinkerRunner
from omni_stage.models.qwen3_omni.components.tiny import make_tiny
from omni_stage.models.qwen3_omni.components.weights import read_config
from omni_stage.models.qwen3_omni.payload_types import Layout, Prompt, TextTokens, ThinkerInput
from omni_stage.process import StageProcess
from omni_stage.program import StageContext
from omni_stage.scheduler.ar_contract import Batch
from omni_stage.scheduler.contract import Emit, NewRequest
from omni_stage.settings import StageSettings
from omni_stage.tensor_parallel.followers import Followers, spread
from omni_stage.tensor_parallel.order import Order, render

pytestmark = pytest.mark.anyio

STEPS = 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder)
    return folder


def order(model: Path, size: int, device: str = "cpu") -> Order:
    pipeline = load_pipeline_config("qwen3-omni")
    stages = [s.model_copy(update={"tp_size": size if s.name == "thinker" else 1}) for s in pipeline.stages]
    return Order(
        family="qwen3-omni",
        pipeline=pipeline.model_copy(update={"stages": tuple(stages)}).model_dump_json(),
        stage="thinker",
        model=str(model),
        device=device,
        dtype="float32",
        threads=1,
        log_level="INFO",
    )


@dataclass
class Ranks:
    """Rank 0 of a thinker, in this process, and its follower."""

    followers: Followers
    context: StageContext
    runner: ThinkerRunner

    @property
    def follower(self) -> psutil.Process:
        (pid,) = self.followers.pids
        return psutil.Process(pid)

    def say(self, name: str, steps: int = STEPS) -> list[int]:
        """The tokens of an answer."""
        return said(self.runner, self.context, name, steps)


def prompt(model: Path) -> ThinkerInput:
    """A user's turn and the opening of the assistant's."""
    config = read_config(model)
    start, end = config.im_start_token_id, config.im_end_token_id
    ids = torch.tensor([start, config.user_token_id, 70, 71, 72, end, start, config.assistant_token_id, 70])
    return ThinkerInput(Prompt(Layout(from_torch(ids), None, None, (), ()), speech=False, usage=Usage()), None, None)


def said(runner: ThinkerRunner, context: StageContext, name: str, steps: int) -> list[int]:
    key = RequestKey(name)
    params = GenerationParams(
        modalities=frozenset({Modality.TEXT}), sampling=Sampling(temperature=0.0, max_tokens=steps + 1)
    )
    assert context.model is not None
    runner.open(NewRequest(key, params, prompt(context.model)))
    tokens: list[int] = []
    for step in range(steps):
        batch = Batch(prefill=(), decode=(key,)) if step else Batch(prefill=(key,), decode=())
        for made in runner.execute(batch):
            if isinstance(made, Emit) and isinstance(made.chunk, TextTokens):
                tokens += made.chunk.ids
    runner.close(key)
    return tokens


@asynccontextmanager
async def ranks(model: Path, size: int = 2, timeout: float = 60.0, device: str = "cpu") -> AsyncIterator[Ranks]:
    told = order(model, size, device)
    async with spread(told, size, timedelta(seconds=timeout)) as followers:
        assert followers is not None
        leading = await followers.start()
        context = replace(told.context(), rank=leading.rank, leading=leading)
        opened = await anyio.to_thread.run_sync(open_text_model, context, abandon_on_cancel=True)
        await followers.all_loaded()
        yield Ranks(followers, context, ThinkerRunner(opened.weights, opened.store, text=opened.text))


async def gone(process: psutil.Process) -> None:
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(process.wait)


def sentence(error: BaseException | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, CannotStart), error
    return str(error)


async def test_two_ranks_say_what_one_says_and_none_is_left_behind(tiny: Path) -> None:
    alone = order(tiny, 1).context()
    opened = open_text_model(alone)
    expected = said(ThinkerRunner(opened.weights, opened.store), alone, "alone", STEPS)
    async with ranks(tiny) as both:
        follower = both.follower
        first, second = [await anyio.to_thread.run_sync(both.say, name) for name in ("first", "second")]
    await gone(follower)
    assert first == second == expected
    assert len(set(expected)) > 3, "a model that says one thing for ever proves nothing"


@pytest.mark.gpu
async def test_two_gpus_say_what_one_says(tiny: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there are no two GPUs")
    alone = order(tiny, 1, "cuda").context()
    opened = open_text_model(alone)
    expected = said(ThinkerRunner(opened.weights, opened.store), alone, "alone", STEPS)
    async with ranks(tiny, device="cuda") as both:
        assert await anyio.to_thread.run_sync(both.say, "first") == expected


def test_a_stage_that_cannot_be_spread_says_so_when_it_is_made(tiny: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline_config("qwen3-omni")
    stages = [s.model_copy(update={"tp_size": 2 if s.name == "talker" else 1}) for s in pipeline.stages]
    file = tmp_path / "pipeline.json"
    file.write_text(pipeline.model_copy(update={"stages": tuple(stages)}).model_dump_json())
    settings = StageSettings(
        family="qwen3-omni", pipeline=file, stage="talker", replica="a", coordinators="127.0.0.1:1", model=tiny
    )
    with pytest.raises(CannotStart, match=r"Stage 'talker' cannot start\. It runs on one GPU, and its tp_size is 2"):
        StageProcess(settings)


async def test_a_follower_that_dies_fails_the_step_at_once_and_ends_the_replica(tiny: Path) -> None:
    failed: list[Exception | None] = []

    async def die() -> None:
        async with ranks(tiny) as both:
            with anyio.CancelScope(shield=True):  # as the scheduler's thread goes on while its replica ends
                os.kill(both.follower.pid, signal.SIGKILL)
                failed.append(await failure_of(lambda: anyio.to_thread.run_sync(both.say, "late")))
            await anyio.sleep_forever()

    with anyio.fail_after(60):
        last = sentence(await failure_of(die))
    assert last == "Stage 'thinker' ends. Its ranks are not complete: rank 1 of 2 ended by signal 9."
    assert isinstance(failed[0], StageUnavailable)


async def test_a_follower_that_hangs_ends_the_replica_when_its_time_is_over(tiny: Path) -> None:
    hung: list[psutil.Process] = []

    async def hang() -> None:
        async with ranks(tiny, timeout=8.0) as both:
            hung.append(both.follower)
            both.follower.suspend()
            failure = await failure_of(lambda: anyio.to_thread.run_sync(both.say, "never", abandon_on_cancel=True))
            assert isinstance(failure, StageUnavailable)
            await anyio.sleep_forever()

    with anyio.fail_after(100):
        assert sentence(await failure_of(hang)).startswith(
            "Stage 'thinker' ends. Its ranks no longer work together: their group"
        )
    await gone(hung[0])


async def test_a_size_that_does_not_divide_the_heads_is_refused_by_every_rank(tiny: Path) -> None:
    async def wait() -> None:
        async with spread(order(tiny, 3), 3, timedelta(seconds=60)) as followers:
            assert followers is not None
            await followers.start()
            await anyio.sleep_forever()

    with anyio.fail_after(60):
        refusal = sentence(await failure_of(wait))
    assert refusal == (
        "Stage 'thinker' cannot start. Its tp_size is 3, which does not divide 4 attention heads and 2 key/value heads "
        "and 32 features inside an expert."
    )


async def test_rank_0_does_not_wait_for_ever_for_a_follower_that_does_not_load(tiny: Path) -> None:
    async def wait() -> None:
        async with spread(order(tiny, 2), 2, timedelta(seconds=0.5)) as followers:
            assert followers is not None
            await followers.start()
            await followers.all_loaded()

    with anyio.fail_after(60):
        failure = await failure_of(wait)
    assert "Rank 1 has not loaded its part 0 s after rank 0 had its own" in sentence(failure)


PARENT = """
import sys
from datetime import timedelta

import anyio

from omni_stage.tensor_parallel import order
from omni_stage.tensor_parallel.followers import spread

async def main():
    async with spread(order.parse(sys.argv[1].encode()), 2, timedelta(seconds=60)) as followers:
        await followers.start()
        print(*followers.pids, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_rank_0_that_is_killed_takes_its_follower_with_it(stopped: bool, tiny: Path) -> None:
    command = [sys.executable, "-c", PARENT, render(order(tiny, 2)).decode()]
    async with await anyio.open_process(command, stderr=None) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(60):
            follower = psutil.Process(int(await parent.stdout.receive()))
        if stopped:
            await tied(follower)
            follower.suspend()
        parent.kill()
        await gone(follower)


async def tied(follower: psutil.Process) -> None:
    """Until it has heard its order: from then on its parent's death is its own."""
    with anyio.fail_after(60):
        while follower.num_threads() < 2:  # noqa: ASYNC110  # another process's thread: it listens for the line's end
            await anyio.sleep(0.01)
