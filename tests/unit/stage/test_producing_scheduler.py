"""The scheduler that makes a stream of one payload, with real threads and iterators that wait at a gate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from omni_common.errors import InvalidRequest, Reason
from omni_common.request import GenerationParams, RequestKey
from omni_stage.core.turn_queue import TurnQueue
from omni_stage.scheduler.contract import (
    Chunk,
    Dropped,
    Emit,
    Failed,
    Incoming,
    Load,
    NewRequest,
    Pause,
    Result,
    Resume,
)
from omni_stage.scheduler.meter import StageMeter
from omni_stage.scheduler.producing import ProducingScheduler
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C = (RequestKey(name) for name in "abc")


class Press:
    """Makes the pieces of a list, and returns their number; raises a piece that is an exception.

    Each piece waits at the gate; `order` says whose pieces were begun, `closed` whose iterators were closed.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.order: list[str] = []
        self.opened: list[str] = []
        self.closed: list[str] = []

    def open(self, request: NewRequest) -> Iterator[object]:
        if request.payload == "bad":
            raise InvalidRequest("This is no text.", param="input")
        assert isinstance(request.payload, list)
        self.opened.append(request.key.request_id)
        return Pieces(self, request.key.request_id, request.payload)


class Pieces:
    """Strict: breaks the test if it is used by two at a time, after its close, or closed twice."""

    def __init__(self, press: Press, name: str, pieces: list[object]) -> None:
        self._press = press
        self._name = name
        self._pieces = pieces
        self._made = 0
        self._alone = threading.Lock()

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> object:
        assert self._alone.acquire(blocking=False)
        try:
            assert self._name not in self._press.closed
            self._press.order.append(self._name)
            self._press.entered.release()
            assert self._press.gate.wait(ENOUGH)
            if self._made == len(self._pieces):
                raise StopIteration(self._made)
            self._made += 1
            piece = self._pieces[self._made - 1]
            if isinstance(piece, Exception):
                raise piece
            return piece
        finally:
            self._alone.release()

    def close(self) -> None:
        busy = not self._alone.acquire(blocking=False)
        self._press.closed.append(f"{self._name} while it was busy" if busy else self._name)


@pytest.fixture
def press() -> Press:
    return Press()


Make = Callable[..., ProducingScheduler]


@pytest.fixture
def make(press: Press) -> Iterator[Make]:
    made: list[ProducingScheduler] = []

    def build(
        open_pieces: Callable[[NewRequest], Iterator[object]] = press.open,
        max_running: int = 4,
        max_waiting: int = 4,
        threads: int = 1,
        meter: StageMeter | None = None,
    ) -> ProducingScheduler:
        made.append(
            ProducingScheduler(
                open_pieces,
                stage="split",
                max_running=max_running,
                max_waiting=max_waiting,
                threads=threads,
                meter=meter,
            )
        )
        return made[-1]

    yield build
    press.gate.set()
    for scheduler in made:
        scheduler.stop()
    assert sorted(press.closed) == sorted(press.opened), "each iterator is closed once, and never while it is used"


def new(key: RequestKey, *pieces: object) -> NewRequest:
    return NewRequest(key, GenerationParams(), list(pieces))


def running(scheduler: ProducingScheduler, *items: Incoming) -> Answers:
    """The answers of a scheduler that finds these items in its inbox when it starts."""
    for item in items:
        scheduler.submit(item)
    answers = Answers()
    scheduler.start(answers)
    return answers


def test_each_piece_is_emitted_as_it_is_made_and_the_end_is_the_result(make: Make, press: Press) -> None:
    answers = running(make(), new(A, "one", "two"))
    assert answers.end_of(A) == Result(A, 2)
    assert answers.calls == ((Emit(A, "one"),), (Emit(A, "two"),), (Result(A, 2),))
    assert press.closed == ["a"]


def test_an_iterator_that_returns_nothing_and_holds_nothing_results_in_none(make: Make) -> None:
    answers = running(make(lambda request: iter([1, 2])), new(A))
    assert answers.end_of(A) == Result(A, None)
    assert answers.chunks(A) == (1, 2)


def test_a_generator_is_served_and_cleaned_up(make: Make) -> None:
    cleaned: list[str] = []

    def pieces(request: NewRequest) -> Iterator[object]:
        try:
            yield "one"
            yield "two"
        finally:
            cleaned.append(request.key.request_id)

    scheduler = make(pieces)
    answers = running(scheduler, new(A), new(B), Pause(B))
    assert answers.end_of(A) == Result(A, None)
    scheduler.submit(Resume(B))
    answers.end_of(B)
    assert cleaned == ["a", "b"]


def test_who_has_made_nothing_comes_first_and_then_all_take_turns(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A, 1, 2, 3))
    assert press.entered.acquire(timeout=ENOUGH)
    for key in (B, C):
        scheduler.submit(new(key, 1, 2))
    scheduler.abort(RequestKey("x"))
    answers.end_of(RequestKey("x"))  # so all are there
    press.gate.set()
    for key in (A, B, C):
        answers.end_of(key)
    assert "".join(press.order) == "abcabcabca"


def test_a_paused_request_is_not_advanced(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A, 1, 2))
    assert press.entered.acquire(timeout=ENOUGH)
    scheduler.submit(Pause(A))
    scheduler.submit(new(B, 1, 2, 3))
    press.gate.set()
    answers.end_of(B)
    assert answers.about(A) == (Emit(A, 1),)
    assert press.order.count("a") == 1
    scheduler.submit(Resume(A))
    assert answers.end_of(A) == Result(A, 2)


def test_a_request_that_is_paused_before_its_first_piece_is_not_opened(make: Make, press: Press) -> None:
    scheduler = make(max_running=1)
    answers = running(scheduler, new(A, 1), Pause(A), new(B, 1))
    answers.end_of(B)
    assert press.opened == ["b"]
    assert scheduler.load() == Load(0, 1)
    scheduler.submit(Resume(A))
    assert answers.end_of(A) == Result(A, 1)


def test_no_more_iterators_are_open_than_there_are_places_and_the_rest_is_refused(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make(max_running=1, max_waiting=1)
    answers = running(scheduler, new(A, 1), new(B, 1), new(C, 1))
    assert press.entered.acquire(timeout=ENOUGH)
    failed = answers.end_of(C)
    assert isinstance(failed, Failed)
    assert failed.error.reason is Reason.OVERLOADED
    assert press.opened == ["a"]
    press.gate.set()
    assert (answers.end_of(A), answers.end_of(B)) == (Result(A, 1), Result(B, 1))
    assert "".join(press.order) == "aabb"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidRequest("This text cannot be split."), Reason.INVALID_REQUEST),
        (KeyError("x"), Reason.STAGE_FAILED),
    ],
)
def test_a_piece_that_cannot_be_made_fails_its_request(
    make: Make, press: Press, error: Exception, reason: Reason
) -> None:
    answers = running(make(), new(A, 1, error, 2), new(B, 1))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.reason is reason
    assert answers.end_of(B) == Result(B, 1)
    assert answers.about(A) == (Emit(A, 1), failed)


def test_an_iterator_that_cannot_be_opened_fails_its_request(make: Make) -> None:
    def bad(key: RequestKey) -> NewRequest:
        return NewRequest(key, GenerationParams(), "bad")

    answers = running(make(max_running=1, max_waiting=1), bad(A), bad(B))
    for key in (A, B):
        failed = answers.end_of(key)
        assert isinstance(failed, Failed)
        assert failed.error.param == "input"


def test_a_stop_iteration_of_the_opening_is_a_fault_and_no_end(make: Make) -> None:
    answers = running(make(lambda request: next(iter([]))), new(A))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.reason is Reason.STAGE_FAILED


def test_an_abort_is_answered_when_the_piece_ends_or_else_at_once(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A, 1, 2), new(B, 1))
    assert press.entered.acquire(timeout=ENOUGH)
    for key in (A, B):
        scheduler.abort(key)
    assert answers.end_of(B) == Dropped(B)
    assert answers.about(A) == ()
    press.gate.set()
    assert answers.end_of(A) == Dropped(A)
    scheduler.submit(Resume(A))
    scheduler.submit(new(C, 1))
    answers.end_of(C)
    assert (answers.about(A), answers.about(B)) == ((Dropped(A),), (Dropped(B),))
    assert "".join(press.order) == "acc"
    assert scheduler.load() == Load(0, 0)


def test_an_open_iterator_is_closed_by_the_abort_of_its_request(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A, 1, 2))
    assert press.entered.acquire(timeout=ENOUGH)
    scheduler.submit(Pause(A))
    scheduler.abort(B)
    answers.end_of(B)
    press.gate.set()
    answers.wait_for(lambda said: Emit(A, 1) in said)
    scheduler.abort(A)
    assert answers.end_of(A) == Dropped(A)
    assert press.closed == ["a"]
    assert answers.about(A) == (Emit(A, 1), Dropped(A))


def test_an_abort_of_the_last_piece_is_not_overtaken_by_the_result(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A))
    assert press.entered.acquire(timeout=ENOUGH)
    scheduler.abort(A)
    scheduler.abort(B)
    answers.end_of(B)
    press.gate.set()
    assert answers.end_of(A) == Dropped(A)
    assert answers.about(A) == (Dropped(A),)


def test_several_threads_make_pieces_of_different_requests_at_the_same_time(make: Make) -> None:
    together = threading.Barrier(2)

    def pieces(request: NewRequest) -> Iterator[object]:
        for _ in range(2):
            together.wait(ENOUGH)
            yield request.key.request_id

    answers = running(make(pieces, threads=2), new(A), new(B))
    assert (answers.end_of(A), answers.end_of(B)) == (Result(A, None), Result(B, None))


def test_one_request_has_one_piece_under_way_however_many_threads_there_are(make: Make, press: Press) -> None:
    answers = running(make(threads=4), new(A, *range(50)))
    assert answers.end_of(A) == Result(A, 50)
    assert answers.chunks(A) == tuple(range(50))


class Steps(StageMeter):
    def __init__(self) -> None:
        super().__init__("split")
        self.steps: list[tuple[RequestKey, ...]] = []

    def step(self, keys: Sequence[RequestKey], seconds: float) -> None:
        super().step(keys, seconds)
        self.steps.append(tuple(keys))


def test_the_meter_is_told_of_each_turn(make: Make) -> None:
    meter = Steps()
    answers = running(make(meter=meter), new(A, 1), new(B))
    for key in (A, B):
        answers.end_of(key)
    assert meter.steps == [(A,), (B,), (A,)]


def test_a_piece_that_hangs_holds_the_heartbeat_back(make: Make, press: Press) -> None:
    press.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A, 1))
    assert press.entered.acquire(timeout=ENOUGH)
    scheduler.abort(B)
    answers.end_of(B)
    now = time.monotonic()
    assert scheduler.last_step() <= now
    press.gate.set()
    answers.end_of(A)
    scheduler.abort(C)
    answers.end_of(C)
    assert scheduler.last_step() > now


def test_stop_waits_for_the_piece_under_way_and_closes_all_iterators(make: Make, press: Press) -> None:
    scheduler = make()
    answers = running(scheduler, new(A, 1, 2), Pause(B))
    answers.end_of(A)
    press.gate.clear()
    while press.entered.acquire(blocking=False):
        pass
    scheduler.submit(new(B, 1, 2))
    assert press.entered.acquire(timeout=ENOUGH)
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    assert stopping.is_alive()
    assert press.closed == ["a"]
    press.gate.set()
    stopping.join(ENOUGH)
    assert not stopping.is_alive()
    assert press.closed == ["a", "b"]


def test_chunks_mean_nothing_to_it(make: Make) -> None:
    answers = running(make(), new(A, 1), Chunk(A, "thinker", 1))
    assert answers.end_of(A) == Result(A, 1)
    assert answers.about(A) == (Emit(A, 1), Result(A, 1))


def test_who_arrives_after_others_have_begun_is_still_the_first() -> None:
    queue = TurnQueue(max_running=2, max_waiting=1)
    assert queue.admit(A)
    assert queue.next_turn() == A
    queue.made(A)
    assert queue.admit(B)
    assert queue.next_turn() == B


def test_a_request_that_comes_again_is_not_paused_any_more() -> None:
    queue = TurnQueue(max_running=1, max_waiting=0)
    assert queue.admit(A)
    queue.pause(A)
    assert queue.end(A)
    assert queue.admit(A)
    assert queue.next_turn() == A


def test_a_request_that_ended_while_its_piece_was_made_does_not_come_back() -> None:
    queue = TurnQueue(max_running=1, max_waiting=1)
    assert (queue.admit(A), queue.admit(B), queue.admit(C)) == (True, True, False)
    assert (queue.next_turn(), queue.next_turn()) == (A, None)
    assert queue.end(A)
    assert queue.next_turn() == B
    queue.made(B)
    assert queue.next_turn() == B


def test_a_request_is_due_between_two_of_its_pieces() -> None:
    queue = TurnQueue(max_running=1, max_waiting=1)
    assert queue.admit(A)
    assert queue.is_due(A)
    queue.next_turn()
    assert not queue.is_due(A)
    queue.made(A)
    assert queue.is_due(A)
