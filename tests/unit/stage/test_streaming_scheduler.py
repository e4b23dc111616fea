"""The scheduler of stream-to-stream stages, with a real thread and sessions that write down what they are given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from omni_common.errors import InvalidRequest, Reason
from omni_common.request import GenerationParams, RequestKey
from omni_stage.core.stream_queue import StreamQueue
from omni_stage.scheduler.contract import (
    Chunk,
    Consumed,
    Done,
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
from omni_stage.scheduler.streaming import StreamScheduler
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C = (RequestKey(name) for name in "abc")


class Scribe:
    """Returns each piece as (source, chunks), then ("end",); breaks on a chunk that is an exception."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._seen = 0

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        self._book.entered.set()
        assert self._book.gate.wait(ENOUGH)
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
        self._seen += len(chunks)
        return [(source, *chunks)]

    def finish(self) -> tuple[Sequence[object], object]:
        return [("end",)], self._seen

    def close(self) -> None:
        self._book.open -= 1


class Book:
    """Opens the sessions; `gate` is shut to hold a push."""

    def __init__(self) -> None:
        self.open = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def session(self, request: NewRequest) -> Scribe:
        if request.payload == "bad":
            raise InvalidRequest("No such voice.", param="audio.voice")
        self.open += 1
        return Scribe(self)


@pytest.fixture
def book() -> Book:
    return Book()


Make = Callable[..., StreamScheduler]


@pytest.fixture
def make(book: Book) -> Iterator[Make]:
    made: list[StreamScheduler] = []

    def build(max_running: int = 4, max_waiting: int = 4, sources: int = 1) -> StreamScheduler:
        made.append(
            StreamScheduler(
                book.session, stage="code2wav", max_running=max_running, max_waiting=max_waiting, sources=sources
            )
        )
        return made[-1]

    yield build
    book.gate.set()
    for scheduler in made:
        scheduler.stop()


def new(key: RequestKey, payload: object = None) -> NewRequest:
    return NewRequest(key, GenerationParams(), payload)


def running(scheduler: StreamScheduler, *items: Incoming) -> Answers:
    """The answers of a scheduler that finds these items in its inbox when it starts."""
    for item in items:
        scheduler.submit(item)
    answers = Answers()
    scheduler.start(answers)
    return answers


def test_what_has_queued_up_is_worked_on_at_once_and_credited(make: Make, book: Book) -> None:
    answers = running(make(), new(A), Chunk(A, "talker", 1), Chunk(A, "talker", 2), Done(A, "talker"))
    assert answers.end_of(A) == Result(A, 2)
    assert answers.about(A) == (
        Consumed(A, "talker", 2),
        Emit(A, ("talker", 1, 2)),
        Emit(A, ("end",)),
        Result(A, 2),
    )
    assert book.open == 0


def test_chunks_are_emitted_before_the_input_is_complete(make: Make) -> None:
    scheduler = make()
    answers = running(scheduler, new(A))
    for number in (1, 2, 3):
        scheduler.submit(Chunk(A, "talker", number))
    answers.wait_for(lambda said: sum(a.count for a in said if isinstance(a, Consumed)) == 3)
    pieces = [chunk for chunk in answers.chunks(A) if isinstance(chunk, tuple)]
    assert [number for _, *numbers in pieces for number in numbers] == [1, 2, 3]
    scheduler.submit(Done(A, "talker"))
    assert answers.end_of(A) == Result(A, 3)


def test_a_stream_without_chunks_still_has_a_result(make: Make) -> None:
    answers = running(make(), new(A), Done(A, "talker"))
    assert answers.end_of(A) == Result(A, 0)
    assert answers.chunks(A) == (("end",),)


def test_a_request_with_two_sources_ends_when_both_are_done(make: Make) -> None:
    scheduler = make(sources=2)
    answers = running(
        scheduler, new(A), Chunk(A, "left", 1), Done(A, "left"), new(B), Done(B, "left"), Done(B, "right")
    )
    answers.end_of(B)
    assert answers.about(A) == (Consumed(A, "left", 1), Emit(A, ("left", 1)))
    scheduler.submit(Chunk(A, "right", 2))
    scheduler.submit(Done(A, "right"))
    assert answers.end_of(A) == Result(A, 2)


def test_a_paused_request_keeps_its_chunks_and_their_credits(make: Make) -> None:
    scheduler = make()
    answers = running(scheduler, new(A), Pause(A), Chunk(A, "talker", 1), Done(A, "talker"), new(B), Done(B, "talker"))
    answers.end_of(B)
    assert answers.about(A) == ()
    scheduler.submit(Resume(A))
    assert answers.end_of(A) == Result(A, 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(InvalidRequest("This is no codec frame."), Reason.INVALID_REQUEST), (KeyError("x"), Reason.STAGE_FAILED)],
)
def test_a_chunk_that_breaks_a_session_fails_its_request_and_closes_it(
    make: Make, book: Book, error: Exception, reason: Reason
) -> None:
    answers = running(make(), new(A), Chunk(A, "talker", error), Done(A, "talker"), new(B), Done(B, "talker"))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.reason is reason
    assert answers.end_of(B) == Result(B, 0)
    assert answers.about(A) == (Consumed(A, "talker", 1), failed)
    assert book.open == 0


def test_a_session_that_cannot_be_opened_fails_its_request(make: Make) -> None:
    answers = running(make(), new(A, "bad"), Chunk(A, "talker", 1), Done(A, "talker"))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.param == "audio.voice"


def test_an_abort_during_a_turn_is_answered_dropped_and_nothing_else(make: Make, book: Book) -> None:
    book.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A), Chunk(A, "talker", 1), Done(A, "talker"))
    assert book.entered.wait(ENOUGH)
    scheduler.abort(A)
    book.gate.set()
    assert answers.end_of(A) == Dropped(A)
    scheduler.submit(Chunk(A, "talker", 2))
    scheduler.submit(new(B))
    scheduler.submit(Done(B, "talker"))
    answers.end_of(B)
    assert answers.about(A) == (Dropped(A),)
    assert book.open == 0
    assert scheduler.load() == Load(0, 0)


def test_a_request_beyond_all_places_is_refused(make: Make) -> None:
    answers = running(make(max_running=1, max_waiting=1), new(A), new(B), new(C))
    failed = answers.end_of(C)
    assert isinstance(failed, Failed)
    assert failed.error.reason is Reason.OVERLOADED


def test_a_request_with_nothing_to_do_holds_no_place(make: Make) -> None:
    answers = running(make(max_running=1), new(A), new(B), Chunk(B, "talker", 1), Done(B, "talker"))
    assert answers.end_of(B) == Result(B, 1)


def test_stop_closes_the_sessions_that_are_open(make: Make, book: Book) -> None:
    scheduler = make()
    answers = running(scheduler, new(A), Chunk(A, "talker", 1))
    answers.wait_for(lambda said: Emit(A, ("talker", 1)) in said)
    scheduler.stop()
    assert book.open == 0


def test_requests_with_chunks_take_turns() -> None:
    queue = StreamQueue(max_running=3, max_waiting=0)
    order: list[RequestKey] = []
    for key in (A, B, C):
        assert queue.admit(key)
        queue.push(key, "talker", 0)
    for _ in range(6):
        turn = queue.next_turn()
        assert turn is not None
        order.append(turn.key)
        queue.push(turn.key, "talker", 0)
    assert order == [A, B, C, A, B, C]


def test_a_begun_request_keeps_its_place_until_it_ends() -> None:
    queue = StreamQueue(max_running=1, max_waiting=1)
    for key in (A, B):
        assert queue.admit(key)
        queue.push(key, "talker", 0)
    first = queue.next_turn()
    assert first is not None
    assert (first.key, first.first, first.last) == (A, True, False)
    assert queue.next_turn() is None
    assert (queue.running, queue.waiting) == (1, 1)
    assert queue.end(A)
    second = queue.next_turn()
    assert second is not None
    assert second.key == B


def test_a_request_is_due_while_it_has_something_to_do_that_its_reader_does_not_hold_up() -> None:
    queue = StreamQueue(max_running=1, max_waiting=1)
    assert not queue.is_due(A)
    assert queue.admit(A)
    assert not queue.is_due(A)
    queue.push(A, "thinker", "chunk")
    assert queue.is_due(A)
    queue.pause(A)
    assert not queue.is_due(A)
    queue.resume(A)
    queue.next_turn()
    assert not queue.is_due(A)
    queue.done(A, "thinker")
    assert queue.is_due(A)
