"""The autoregressive scheduler with a real thread and a runner that counts instead of thinking."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from prometheus_client import REGISTRY

from omni_common.errors import ContextTooLong, Overloaded, Reason
from omni_common.request import GenerationParams, RequestKey
from omni_stage.scheduler.ar import ArScheduler
from omni_stage.scheduler.ar_contract import Batch, CacheUse
from omni_stage.scheduler.contract import (
    Chunk,
    Consumed,
    Done,
    Dropped,
    Emit,
    Failed,
    Load,
    NewRequest,
    Outgoing,
    Pause,
    Result,
    Resume,
)
from omni_stage.scheduler.meter import StageMeter
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C = (RequestKey(name) for name in "abc")


def request(key: RequestKey, tokens: int | None) -> NewRequest:
    """A request for so many tokens; with None it makes one per chunk that it is fed, until its input is closed."""
    return NewRequest(key, GenerationParams(), tokens)


class CountingRunner:
    """Makes the numbers 1, 2, 3... for each request. `gate` is shut to hold a step, `entered` tells that one began."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.closed: list[RequestKey] = []
        self.broken: set[RequestKey] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._tokens: dict[RequestKey, int | None] = {}
        self._made: dict[RequestKey, int] = {}
        self._fed: dict[RequestKey, int] = {}

    def open(self, new: NewRequest) -> None:
        if new.payload == 0:
            raise ContextTooLong(9, 8)
        assert new.payload is None or isinstance(new.payload, int)
        self._tokens[new.key] = new.payload
        self._made[new.key] = 0
        self._fed[new.key] = 0

    def feed(self, key: RequestKey, source: str, chunk: object) -> None:
        if chunk == "indigestible":
            raise ValueError(chunk)
        self._fed[key] += 1

    def close_input(self, key: RequestKey, source: str) -> None:
        self._tokens[key] = self._made[key] + self._fed[key]

    def ready(self, key: RequestKey) -> bool:
        return self._tokens[key] is not None or self._fed[key] > 0

    def execute(self, batch: Batch) -> Sequence[Outgoing]:
        self.batches.append(batch)
        self.entered.set()
        assert self.gate.wait(ENOUGH)
        members = (*batch.prefill, *batch.decode)
        if self.broken.intersection(members):
            raise RuntimeError("the device is on fire")
        return [answer for key in members for answer in self._advance(key)]

    @property
    def prompt_tokens(self) -> int:
        return 10 * len(self.batches[-1].prefill)

    @property
    def reused_tokens(self) -> int:
        return 7 * len(self.batches[-1].prefill)

    def cache_use(self) -> CacheUse:
        return CacheUse(tokens=sum(self._made.values()), size=100 * len(self._made))

    def close(self, key: RequestKey) -> None:
        self.closed.append(key)
        self._tokens.pop(key, None)

    def _advance(self, key: RequestKey) -> Iterator[Outgoing]:
        self._made[key] += 1
        yield Emit(key, self._made[key])
        if self._fed[key]:
            self._fed[key] -= 1
            yield Consumed(key, "thinker")
        if self._made[key] == self._tokens[key]:
            yield Result(key, self._made[key])


class LateMeter(StageMeter):
    def __init__(self) -> None:
        super().__init__("thinker")
        self.count = 0

    def late(self) -> None:
        self.count += 1


@pytest.fixture
def runner() -> CountingRunner:
    return CountingRunner()


@pytest.fixture
def meter() -> LateMeter:
    return LateMeter()


@pytest.fixture
def scheduler(runner: CountingRunner, meter: LateMeter) -> Iterator[ArScheduler]:
    made = ArScheduler(runner, stage="thinker", max_running=2, max_waiting=40, meter=meter)
    yield made
    runner.gate.set()
    made.stop()


@pytest.fixture
def answers(scheduler: ArScheduler) -> Answers:
    collected = Answers()
    scheduler.start(collected)
    return collected


def test_each_of_many_requests_gets_all_its_tokens_in_order_and_ends_once(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers
) -> None:
    keys = [RequestKey(f"r{i}") for i in range(40)]
    for i, key in enumerate(keys):
        scheduler.submit(request(key, 1 + i % 7))
    for i, key in enumerate(keys):
        assert answers.end_of(key) == Result(key, 1 + i % 7)
        assert answers.chunks(key) == tuple(range(1, 2 + i % 7))
        assert len(answers.about(key)) == 2 + i % 7
    assert max(len(b.prefill) + len(b.decode) for b in runner.batches) == 2
    assert scheduler.load() == Load(0, 0)
    assert sorted(runner.closed) == sorted(keys)


def test_what_one_step_made_for_all_is_one_call(scheduler: ArScheduler, answers: Answers) -> None:
    scheduler.submit(request(A, 3))
    scheduler.submit(request(B, 3))
    answers.end_of(A)
    answers.end_of(B)
    assert any({answer.key for answer in call} == {A, B} for call in answers.calls)


def test_a_request_beyond_all_places_is_refused(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers
) -> None:
    runner.gate.clear()
    for i in range(42):
        scheduler.submit(request(RequestKey(f"r{i}"), 1))
    scheduler.submit(request(A, 1))
    runner.gate.set()
    end = answers.end_of(A)
    assert isinstance(end, Failed)
    assert isinstance(end.error, Overloaded)
    assert answers.end_of(RequestKey("r41")) == Result(RequestKey("r41"), 1)


def test_a_paused_request_stands_still_until_it_is_resumed(scheduler: ArScheduler, answers: Answers) -> None:
    scheduler.submit(request(A, 3))
    scheduler.submit(Pause(A))
    scheduler.submit(request(B, 5))
    answers.end_of(B)
    before = len(answers.about(A))
    scheduler.submit(request(C, 5))
    answers.end_of(C)
    assert len(answers.about(A)) == before < 3
    scheduler.submit(Resume(A))
    assert answers.end_of(A) == Result(A, 3)


def test_a_starved_request_wakes_for_each_chunk_and_ends_when_its_input_does(
    scheduler: ArScheduler, answers: Answers
) -> None:
    scheduler.submit(request(A, None))
    scheduler.submit(Chunk(A, "thinker", "embedding"))
    answers.wait_for(lambda said: said.count(Consumed(A, "thinker")) == 1)
    scheduler.submit(Chunk(A, "thinker", "embedding"))
    answers.wait_for(lambda said: said.count(Consumed(A, "thinker")) == 2)
    scheduler.submit(Chunk(A, "thinker", "embedding"))
    scheduler.submit(Done(A, "thinker"))
    assert answers.end_of(A) == Result(A, 3)


def test_an_abort_while_a_step_runs_is_answered_dropped_and_nothing_else(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers
) -> None:
    runner.gate.clear()
    scheduler.submit(request(A, 1))
    assert runner.entered.wait(ENOUGH)
    scheduler.abort(A)
    scheduler.abort(A)
    runner.gate.set()
    assert answers.end_of(A) == Dropped(A)
    scheduler.submit(request(B, 2))
    answers.end_of(B)
    assert answers.about(A) == (Dropped(A),)
    assert A in runner.closed
    assert scheduler.load() == Load(0, 0)


def test_an_abort_of_a_request_that_was_never_here_is_answered_too(scheduler: ArScheduler, answers: Answers) -> None:
    scheduler.abort(A)
    assert answers.end_of(A) == Dropped(A)


def test_an_abort_of_one_attempt_leaves_the_next_alone(scheduler: ArScheduler, answers: Answers) -> None:
    again = RequestKey("a", attempt=1)
    scheduler.submit(request(again, 3))
    scheduler.abort(A)
    assert answers.end_of(again) == Result(again, 3)


def test_a_step_that_raises_fails_those_in_it_and_no_one_else(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    runner.broken.add(A)
    scheduler.submit(request(A, 3))
    failed = answers.end_of(A)
    scheduler.submit(request(B, 3))
    assert isinstance(failed, Failed)
    assert (failed.error.reason, failed.error.stage) == (Reason.STAGE_FAILED, "thinker")
    assert answers.end_of(B) == Result(B, 3)
    assert A in runner.closed
    (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    assert record.exc_info is not None


def test_a_request_that_the_runner_refuses_fails_with_the_runners_reason(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers
) -> None:
    scheduler.submit(request(A, 0))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.reason is Reason.CONTEXT_TOO_LONG
    assert runner.batches == []


def test_a_chunk_that_breaks_the_runner_fails_its_request_once(scheduler: ArScheduler, answers: Answers) -> None:
    scheduler.submit(request(A, None))
    scheduler.submit(Chunk(A, "thinker", "indigestible"))
    scheduler.submit(Chunk(A, "thinker", "indigestible"))
    scheduler.submit(request(B, 1))
    answers.end_of(B)
    (failed,) = answers.about(A)
    assert isinstance(failed, Failed)
    assert failed.error.reason is Reason.STAGE_FAILED


def test_what_comes_after_the_end_is_counted_and_ignored(
    scheduler: ArScheduler, meter: LateMeter, answers: Answers
) -> None:
    scheduler.submit(request(A, 1))
    answers.end_of(A)
    for late in (Chunk(A, "thinker", "embedding"), Done(A, "thinker"), Pause(A), Resume(A)):
        scheduler.submit(late)
    scheduler.submit(request(B, 1))
    answers.end_of(B)
    assert answers.about(A) == (Emit(A, 1), Result(A, 1))
    assert meter.count == 4


def test_the_heartbeat_goes_on_while_idle_and_stands_still_in_a_step(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers
) -> None:
    runner.gate.clear()
    scheduler.submit(request(A, 1))
    assert runner.entered.wait(ENOUGH)
    now = time.monotonic()
    assert scheduler.last_step() == scheduler.last_step() <= now
    runner.gate.set()
    answers.end_of(A)


def test_prompts_and_caches_are_metered_and_what_cannot_step_is_not_kept_waiting(runner: CountingRunner) -> None:
    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"stage": "ar_metered", **labels})

    scheduler = ArScheduler(runner, stage="ar_metered", max_running=2, max_waiting=40)
    answers = Answers()
    scheduler.start(answers)
    scheduler.submit(request(A, None))  # starved
    scheduler.abort(C)
    answers.end_of(C)
    assert value("omni_stage_oldest_waiting_seconds") == 0
    scheduler.submit(Chunk(A, "thinker", "one"))
    answers.wait_for(lambda said: Emit(A, 1) in said)
    scheduler.abort(C)
    answers.wait_for(lambda said: said.count(Dropped(C)) == 2)
    assert value("omni_kv_cache_usage_ratio") == 0.25  # of four
    scheduler.submit(request(B, 3))
    assert answers.end_of(B) == Result(B, 3)
    scheduler.stop()
    assert value("omni_stage_prompt_tokens_total", kind="computed") == 20
    assert value("omni_stage_prompt_tokens_total", kind="prefix_hit") == 14
    assert value("omni_kv_cache_tokens") == 4
    assert value("omni_kv_cache_bytes") == 200


def test_stop_waits_for_the_step_under_way_and_frees_what_is_left(
    scheduler: ArScheduler, runner: CountingRunner, answers: Answers
) -> None:
    runner.gate.clear()
    scheduler.submit(request(A, 5))
    assert runner.entered.wait(ENOUGH)
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    assert stopping.is_alive()
    runner.gate.set()
    stopping.join(ENOUGH)
    assert not stopping.is_alive()
    assert len(runner.batches) == 1
    assert runner.closed == [A]
