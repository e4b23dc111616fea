"""The scheduler of payload-to-result stages, with real threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from omni_common.errors import InvalidRequest, Reason
from omni_common.request import GenerationParams, RequestKey
from omni_stage.core.batching import BatchLimits
from omni_stage.scheduler.contract import Chunk, Dropped, Failed, Load, NewRequest, Outgoing, Pause, Result, Resume
from omni_stage.scheduler.simple import BatchScheduler, SimpleScheduler
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C, D = (RequestKey(name) for name in "abcd")


class Desk:
    """Doubles numbers, refuses text, breaks on None; holds at its gate while that is shut."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []

    def one(self, new: NewRequest) -> object:
        return self.batch([new])[0]

    def batch(self, requests: Sequence[NewRequest]) -> Sequence[object]:
        self.batches.append(len(requests))
        self.entered.release()
        assert self.gate.wait(ENOUGH)
        return [self._double(new.payload) for new in requests]

    def _double(self, payload: object) -> object:
        if isinstance(payload, str):
            return InvalidRequest("This is no number.", param="messages.0")
        assert isinstance(payload, int), "broken"
        return 2 * payload


def new(key: RequestKey, payload: object = 1) -> NewRequest:
    return NewRequest(key, GenerationParams(), payload)


Start = Callable[[BatchScheduler], Answers]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def start(desk: Desk) -> Iterator[Start]:
    started: list[BatchScheduler] = []

    def run(scheduler: BatchScheduler) -> Answers:
        answers = Answers()
        scheduler.start(answers)
        started.append(scheduler)
        return answers

    yield run
    desk.gate.set()
    for scheduler in started:
        scheduler.stop()


def test_a_payload_becomes_a_result(desk: Desk, start: Start) -> None:
    scheduler = SimpleScheduler(desk.one, stage="double", max_waiting=8)
    answers = start(scheduler)
    scheduler.submit(new(A, 21))
    assert answers.end_of(A) == Result(A, 42)
    assert scheduler.load() == Load(0, 0)


def test_an_error_that_is_returned_or_raised_fails_its_request_as_it_is(start: Start) -> None:
    def refuse(request: NewRequest) -> object:
        raise InvalidRequest("This image has no pixels.", param="messages.0.content.1")

    scheduler = SimpleScheduler(refuse, stage="preprocess", max_waiting=8)
    answers = start(scheduler)
    scheduler.submit(new(A))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert (failed.error.reason, failed.error.param) == (Reason.INVALID_REQUEST, "messages.0.content.1")


def test_any_other_exception_is_a_failed_stage_logged_once(
    desk: Desk, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = SimpleScheduler(desk.one, stage="double", max_waiting=8)
    answers = start(scheduler)
    scheduler.submit(new(A, None))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert (failed.error.reason, failed.error.stage) == (Reason.STAGE_FAILED, "double")
    (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    assert record.exc_info is not None
    scheduler.submit(new(B, 2))
    assert answers.end_of(B) == Result(B, 4)


def test_requests_that_wait_together_are_computed_together_and_fail_alone(desk: Desk, start: Start) -> None:
    scheduler = BatchScheduler(desk.batch, stage="double", max_waiting=8, limits=BatchLimits(3))
    for key, payload in ((A, 1), (B, "two"), (C, 3), (D, 4)):
        scheduler.submit(new(key, payload))
    answers = start(scheduler)
    assert (answers.end_of(A), answers.end_of(C), answers.end_of(D)) == (Result(A, 2), Result(C, 6), Result(D, 8))
    assert isinstance(answers.end_of(B), Failed)
    assert desk.batches == [3, 1]
    assert [{answer.key for answer in call} for call in answers.calls] == [{A, B, C}, {D}]


def test_a_batch_waits_for_company_and_goes_without_it(desk: Desk, start: Start) -> None:
    scheduler = BatchScheduler(desk.batch, stage="double", max_waiting=8, limits=BatchLimits(8, max_wait=0.01))
    answers = start(scheduler)
    arrived = time.monotonic()
    scheduler.submit(new(A, 1))
    answers.end_of(A)
    assert time.monotonic() - arrived >= 0.01


def test_a_batch_whose_values_do_not_match_its_requests_fails_as_a_whole(start: Start) -> None:
    scheduler = BatchScheduler(lambda requests: [1], stage="short", max_waiting=8, limits=BatchLimits(2))
    scheduler.submit(new(A))
    scheduler.submit(new(B))
    answers = start(scheduler)
    ends = (answers.end_of(A), answers.end_of(B))
    assert all(isinstance(end, Failed) and end.error.reason is Reason.STAGE_FAILED for end in ends)


def test_a_cost_that_cannot_be_told_fails_its_request(desk: Desk, start: Start) -> None:
    def cost(request: NewRequest) -> float:
        raise InvalidRequest("This has no size.")

    limits = BatchLimits(2, max_cost=1)
    scheduler = BatchScheduler(desk.batch, stage="double", max_waiting=8, limits=limits, cost=cost)
    answers = start(scheduler)
    scheduler.submit(new(A))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.reason is Reason.INVALID_REQUEST
    assert desk.batches == []


def test_who_finds_no_place_is_refused_while_the_model_works(desk: Desk, start: Start) -> None:
    scheduler = SimpleScheduler(desk.one, stage="double", max_waiting=1)
    answers = start(scheduler)
    desk.gate.clear()
    scheduler.submit(new(A))
    assert desk.entered.acquire(timeout=ENOUGH)
    scheduler.submit(new(B))
    scheduler.submit(new(C))
    refused = answers.end_of(C)
    assert isinstance(refused, Failed)
    assert refused.error.reason is Reason.OVERLOADED
    assert answers.about(A) == ()
    desk.gate.set()
    assert (answers.end_of(A), answers.end_of(B)) == (Result(A, 2), Result(B, 2))


def test_a_waiting_request_is_dropped_at_once_and_a_running_one_when_it_is_through(desk: Desk, start: Start) -> None:
    scheduler = SimpleScheduler(desk.one, stage="double", max_waiting=8)
    answers = start(scheduler)
    desk.gate.clear()
    scheduler.submit(new(A))
    assert desk.entered.acquire(timeout=ENOUGH)
    scheduler.submit(new(B))
    for key in (A, B, C):
        scheduler.abort(key)
    assert (answers.end_of(B), answers.end_of(C)) == (Dropped(B), Dropped(C))
    assert answers.about(A) == ()
    scheduler.abort(A)
    desk.gate.set()
    assert answers.end_of(A) == Dropped(A)
    scheduler.submit(new(D))
    answers.end_of(D)
    assert answers.about(A) == (Dropped(A),)
    assert len(desk.batches) == 2
    assert scheduler.load() == Load(0, 0)


def test_several_threads_compute_at_the_same_time(start: Start) -> None:
    together = threading.Barrier(2)

    def compute(request: NewRequest) -> object:
        return together.wait(ENOUGH) >= 0

    scheduler = SimpleScheduler(compute, stage="double", max_waiting=8, threads=2)
    answers = start(scheduler)
    scheduler.submit(new(A))
    scheduler.submit(new(B))
    assert (answers.end_of(A), answers.end_of(B)) == (Result(A, True), Result(B, True))


def test_a_computation_that_hangs_holds_the_heartbeat_back(desk: Desk, start: Start) -> None:
    scheduler = SimpleScheduler(desk.one, stage="double", max_waiting=8)
    answers = start(scheduler)
    desk.gate.clear()
    scheduler.submit(new(A))
    assert desk.entered.acquire(timeout=ENOUGH)
    scheduler.abort(B)
    answers.end_of(B)
    now = time.monotonic()
    assert scheduler.last_step() <= now
    desk.gate.set()
    answers.end_of(A)
    scheduler.submit(new(C))
    answers.end_of(C)
    assert scheduler.last_step() > now


def test_chunks_and_pauses_mean_nothing_to_it(desk: Desk, start: Start) -> None:
    scheduler = SimpleScheduler(desk.one, stage="double", max_waiting=8)
    for item in (Pause(A), Chunk(A, "thinker", 1), new(A), Resume(A)):
        scheduler.submit(item)
    answers = start(scheduler)
    said: tuple[Outgoing, ...] = (answers.end_of(A),)
    assert answers.about(A) == said == (Result(A, 2),)
