"""The loop that the schedulers share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from omni_common.request import GenerationParams, RequestKey
from omni_stage.scheduler.contract import Dropped, Incoming, Load, NewRequest, Outgoing, Result
from omni_stage.scheduler.worker import Wait, Worker
from omni_stage.testing.answers import Answers


class Echo(Worker):
    """Answers each request with its payload and has nothing to step."""

    def __init__(self) -> None:
        super().__init__(stage="echo")
        self.steps = 0
        self.threads: set[str] = set()

    def _take(self, item: Incoming) -> Sequence[Outgoing]:
        return (Result(item.key, item.payload),) if isinstance(item, NewRequest) else ()

    def _drop(self, key: RequestKey) -> Sequence[Outgoing]:
        return (Dropped(key),)

    def _step(self) -> tuple[Sequence[Outgoing], Wait]:
        self.steps += 1
        self.threads.add(threading.current_thread().name)
        return (), None

    def _current_load(self) -> Load:
        return Load(0, 0)

    def _close(self) -> None: ...


@pytest.fixture
def worker() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.stop()


def new(key: RequestKey) -> NewRequest:
    return NewRequest(key, GenerationParams(), None)


def test_the_loop_comes_round_only_when_something_arrives(worker: Echo) -> None:
    answers = Answers()
    worker.start(answers)
    keys = [RequestKey(f"r{i}") for i in range(20)]
    for key in keys:
        worker.submit(new(key))
        answers.end_of(key)
    worker.stop()
    assert worker.steps <= len(keys)
    assert worker.threads == {"echo"}


def test_the_heartbeat_of_an_idle_loop_goes_on(worker: Echo) -> None:
    answers, key = Answers(), RequestKey("a")
    worker.start(answers)
    worker.abort(key)
    answers.end_of(key)
    answered = time.monotonic()
    while worker.last_step() < answered:  # until the loop has gone to sleep; the test's time limit bounds it
        pass
    assert answered <= worker.last_step() <= time.monotonic()


def test_what_was_taken_in_together_with_the_abort_of_its_request_is_not_answered(worker: Echo) -> None:
    answers, key = Answers(), RequestKey("a")
    worker.submit(new(key))
    worker.abort(key)
    worker.start(answers)
    answers.end_of(key)
    assert answers.about(key) == (Dropped(key),)


def test_a_request_that_comes_again_after_its_abort_is_served(worker: Echo) -> None:
    answers, key = Answers(), RequestKey("a")
    worker.abort(key)
    worker.submit(new(key))
    worker.start(answers)
    answers.wait_for(lambda said: len(said) == 2)
    assert answers.about(key) == (Dropped(key), Result(key, None))


def test_a_scheduler_starts_once(worker: Echo) -> None:
    worker.start(Answers())
    with pytest.raises(RuntimeError, match="started before"):
        worker.start(Answers())


def test_a_scheduler_that_never_started_stops_at_once(worker: Echo) -> None:
    worker.stop()
    assert worker.steps == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_scheduler_whose_thread_has_died_of_a_fault_has_no_heartbeat() -> None:
    died = threading.Event()

    def outbox(_: object) -> None:
        died.set()
        raise RuntimeError("the outbox is broken")

    scheduler = Echo()
    scheduler.start(outbox)
    scheduler.submit(NewRequest(RequestKey("a"), GenerationParams(), "value"))
    assert died.wait(10)
    thread = scheduler._thread
    assert thread is not None
    thread.join(10)
    assert scheduler.last_step() == float("-inf")
