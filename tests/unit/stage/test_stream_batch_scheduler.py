"""The scheduler that computes many streams in one batch, with real threads and a fake model that waits at a gate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from omni_common.errors import InvalidRequest, OmniError, Reason
from omni_common.request import GenerationParams, RequestKey
from omni_stage.core.stream_batch_queue import StreamBatchLimits
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
from omni_stage.scheduler.meter import StageMeter
from omni_stage.scheduler.stream_batch import Item, StreamBatchScheduler
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C = (RequestKey(name) for name in "abc")
TEXT = "text"


class Voice:
    """A session: it counts what was said with it."""

    def __init__(self, model: Synthesiser, request: NewRequest) -> None:
        self._model = model
        self._request = request
        self.name = request.key.request_id
        self.spoken = 0

    def finish(self) -> tuple[Sequence[object], object]:
        if self._request.payload == "no end":
            raise InvalidRequest("This voice cannot stop.")
        return ["end"], self.spoken

    def close(self) -> None:
        assert not self._model.busy
        self._model.closed.append(self.name)


class Synthesiser:
    """Says each text as its capitals, letter by letter; returns a text that is an error, raises another exception."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.busy = False
        self.batches: list[str] = []
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.threads: set[str] = set()

    def session(self, request: NewRequest) -> Voice:
        self.threads.add(threading.current_thread().name)
        if request.payload == "bad":
            raise InvalidRequest("No such voice.", param="audio.voice")
        self.opened.append(request.key.request_id)
        return Voice(self, request)

    def compute(self, items: Sequence[Item[Voice]]) -> Sequence[Sequence[object] | OmniError]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(" ".join(f"{item.session.name}{item.index}" for item in items))
        self.busy = True
        self.entered.release()
        assert self.gate.wait(ENOUGH)
        self.busy = False
        return [self._say(item) for item in items]

    def _say(self, item: Item[Voice]) -> Sequence[object] | OmniError:
        if isinstance(item.chunk, OmniError):
            return item.chunk
        if isinstance(item.chunk, Exception):
            raise item.chunk
        assert isinstance(item.chunk, str)
        item.session.spoken += 1
        return item.chunk.upper()


def cost(chunk: object) -> float:
    if chunk == "?":
        raise InvalidRequest("This cannot be said.", param="input")
    return float(len(chunk)) if isinstance(chunk, str) else 1.0


@pytest.fixture
def model() -> Synthesiser:
    return Synthesiser()


Make = Callable[..., StreamBatchScheduler[Voice]]


@pytest.fixture
def make(model: Synthesiser) -> Iterator[Make]:
    made: list[StreamBatchScheduler[Voice]] = []

    def build(
        limits: StreamBatchLimits | None = None,
        max_running: int = 4,
        max_waiting: int = 4,
        sources: int = 1,
        one_per_request: bool = False,
        meter: StageMeter | None = None,
    ) -> StreamBatchScheduler[Voice]:
        made.append(
            StreamBatchScheduler(
                model.session,
                model.compute,
                stage="voice",
                max_running=max_running,
                max_waiting=max_waiting,
                limits=StreamBatchLimits(8) if limits is None else limits,
                cost=cost,
                sources=sources,
                one_per_request=one_per_request,
                meter=meter,
            )
        )
        return made[-1]

    yield build
    model.gate.set()
    for scheduler in made:
        scheduler.stop()
    assert sorted(model.closed) == sorted(model.opened), "each session is closed once"


def new(key: RequestKey, payload: object = None) -> NewRequest:
    return NewRequest(key, GenerationParams(), payload)


def whole(key: RequestKey, *chunks: object, payload: object = None) -> tuple[Incoming, ...]:
    """All that is ever said to the scheduler about a request."""
    return (new(key, payload), *(Chunk(key, TEXT, chunk) for chunk in chunks), Done(key, TEXT))


def running(scheduler: StreamBatchScheduler[Voice], *items: Incoming) -> Answers:
    """The answers of a scheduler that finds these items in its inbox when it starts."""
    for item in items:
        scheduler.submit(item)
    answers = Answers()
    scheduler.start(answers)
    return answers


def test_the_chunks_of_many_requests_are_computed_in_one_batch_and_answered_at_once(
    make: Make, model: Synthesiser
) -> None:
    answers = running(make(), *whole(A, "ab", "c"), *whole(B, "d"))
    assert (answers.end_of(A), answers.end_of(B)) == (Result(A, 2), Result(B, 1))
    assert model.batches == ["a0 b0 a1"]
    assert answers.about(A) == (
        Consumed(A, TEXT),
        Consumed(A, TEXT),
        Emit(A, "A"),
        Emit(A, "B"),
        Emit(A, "C"),
        Emit(A, "end"),
        Result(A, 2),
    )
    assert [{type(answer) for answer in call} for call in answers.calls] == [{Consumed}, {Emit, Result}]


def test_the_limits_and_the_cost_make_the_batches(make: Make, model: Synthesiser) -> None:
    limits = StreamBatchLimits(8, max_cost=8, max_spread=2)
    answers = running(make(limits), *whole(A, "aaaa"), *whole(B, "b"), *whole(C, "cc"))
    for key in (A, B, C):
        answers.end_of(key)
    assert model.batches == ["a0 c0", "b0"]


def test_one_item_of_each_request_where_asked_for(make: Make, model: Synthesiser) -> None:
    answers = running(make(one_per_request=True), *whole(A, "a", "a"), *whole(B, "b"))
    assert answers.end_of(A) == Result(A, 2)
    assert model.batches == ["a0 b0", "a1"]


def test_a_chunk_is_credited_when_its_batch_begins_and_not_before(make: Make, model: Synthesiser) -> None:
    model.gate.clear()
    scheduler = make(StreamBatchLimits(1))
    answers = running(scheduler, *whole(A, "a", "a"))
    assert model.entered.acquire(timeout=ENOUGH)
    scheduler.abort(B)
    answers.end_of(B)
    assert answers.about(A) == (Consumed(A, TEXT),)
    model.gate.set()
    assert answers.end_of(A) == Result(A, 2)
    assert answers.about(A).count(Consumed(A, TEXT)) == 2


def test_a_stream_without_chunks_still_has_a_result(make: Make, model: Synthesiser) -> None:
    answers = running(make(), *whole(A))
    assert answers.end_of(A) == Result(A, 0)
    assert answers.chunks(A) == ("end",)
    assert model.batches == []


def test_a_stream_that_ends_after_its_last_batch_is_finished_then(make: Make) -> None:
    scheduler = make()
    answers = running(scheduler, new(A), Chunk(A, TEXT, "a"))
    answers.wait_for(lambda said: Emit(A, "A") in said)
    scheduler.submit(Done(A, TEXT))
    assert answers.end_of(A) == Result(A, 1)


def test_a_request_with_two_sources_ends_when_both_are_done(make: Make) -> None:
    scheduler = make(sources=2)
    answers = running(scheduler, new(A), Chunk(A, "left", "a"), Done(A, "left"), *whole(B), Done(B, "right"))
    answers.end_of(B)
    assert answers.about(A) == (Consumed(A, "left"), Emit(A, "A"))
    scheduler.submit(Chunk(A, "right", "b"))
    scheduler.submit(Done(A, "right"))
    assert answers.end_of(A) == Result(A, 2)
    assert Consumed(A, "right") in answers.about(A)


def test_a_paused_request_keeps_its_chunks_and_its_credits(make: Make, model: Synthesiser) -> None:
    scheduler = make()
    answers = running(scheduler, *whole(A, "a"), Pause(A), *whole(B, "b"))
    answers.end_of(B)
    assert answers.about(A) == ()
    scheduler.submit(Resume(A))
    assert answers.end_of(A) == Result(A, 1)
    assert model.batches == ["b0", "a0"]


def test_an_error_of_one_item_fails_its_request_and_no_other(make: Make) -> None:
    error = InvalidRequest("This is no word.")
    later = InvalidRequest("Nor is this.")
    answers = running(make(), *whole(A, "a", error, "c", later), *whole(B, "b"))
    assert answers.end_of(A) == Failed(A, error)
    assert answers.end_of(B) == Result(B, 1)
    assert answers.chunks(A) == ("A",)
    assert len([a for a in answers.about(A) if isinstance(a, Failed)]) == 1


def test_an_exception_fails_all_of_the_batch_and_no_other(
    make: Make, model: Synthesiser, caplog: pytest.LogCaptureFixture
) -> None:
    limits = StreamBatchLimits(2)
    answers = running(make(limits), *whole(A, "a"), *whole(B, KeyError("b")), *whole(C, "c"))
    for key in (A, B):
        failed = answers.end_of(key)
        assert isinstance(failed, Failed)
        assert (failed.error.reason, failed.error.stage) == (Reason.STAGE_FAILED, "voice")
        assert answers.chunks(key) == ()
    assert answers.end_of(C) == Result(C, 1)
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.parametrize("fault", ["too few", "an error raised", "a generator that breaks"])
def test_a_batch_that_nobody_can_be_blamed_for_fails_as_a_whole(fault: str) -> None:
    def compute(items: Sequence[Item[Voice]]) -> Sequence[Any]:
        if fault == "too few":
            return ["A"]
        if fault == "a generator that breaks":
            return [(1 // number for number in (1, 0)) for _ in items]
        raise InvalidRequest("One of these is bad.")

    scheduler = StreamBatchScheduler(
        Synthesiser().session,
        compute,
        stage="voice",
        max_running=3,
        max_waiting=0,
        limits=StreamBatchLimits(2),
        cost=cost,
    )
    answers = running(scheduler, *whole(A, "a"), *whole(B, "b"), *whole(C))
    ends = (answers.end_of(A), answers.end_of(B))
    assert answers.end_of(C) == Result(C, 0)
    scheduler.stop()
    assert all(isinstance(end, Failed) and end.error.reason is Reason.STAGE_FAILED for end in ends)


def test_a_session_that_cannot_be_opened_or_finished_fails_its_request_alone(make: Make, model: Synthesiser) -> None:
    answers = running(
        make(), *whole(A, "a", payload="bad"), *whole(B, "b", payload="no end"), *whole(C, "c"), *whole(RequestKey("d"))
    )
    first, second = answers.end_of(A), answers.end_of(B)
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert (first.error.param, second.error.reason) == ("audio.voice", Reason.INVALID_REQUEST)
    assert answers.end_of(C) == Result(C, 1)
    assert answers.chunks(B) == ("B",)
    assert model.batches == ["b0 c0"]


def test_a_chunk_whose_cost_cannot_be_told_fails_its_request(make: Make, model: Synthesiser) -> None:
    answers = running(make(), *whole(A, "a", "?", "c"), *whole(B, "b"))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert failed.error.param == "input"
    assert answers.end_of(B) == Result(B, 1)
    assert answers.about(A) == (failed,)
    assert model.batches == ["b0"]


def test_such_a_chunk_of_a_request_that_is_being_computed_fails_it_when_the_batch_ends(
    make: Make, model: Synthesiser
) -> None:
    model.gate.clear()
    scheduler = make()
    answers = running(scheduler, new(A), Chunk(A, TEXT, "a"), new(B), Chunk(B, TEXT, "b"))
    answers.wait_for(lambda said: Consumed(B, TEXT) in said)
    for key in (A, B):
        scheduler.submit(Chunk(key, TEXT, "?"))
    scheduler.abort(B)
    for key in (A, B):
        scheduler.submit(Chunk(key, TEXT, "?"))
    scheduler.abort(C)
    answers.end_of(C)
    assert answers.about(A) == (Consumed(A, TEXT),)
    model.gate.set()
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert answers.end_of(B) == Dropped(B)
    assert answers.about(A) == (Consumed(A, TEXT), failed)
    assert answers.about(B) == (Consumed(B, TEXT), Dropped(B))


def test_aborts_and_refusals_are_answered_while_a_batch_runs(make: Make, model: Synthesiser) -> None:
    model.gate.clear()
    scheduler = make(max_running=1, max_waiting=1)
    answers = running(scheduler, *whole(A, "a"))
    assert model.entered.acquire(timeout=ENOUGH)
    for item in (*whole(B, "b"), new(C)):
        scheduler.submit(item)
    refused = answers.end_of(C)
    assert isinstance(refused, Failed)
    assert refused.error.reason is Reason.OVERLOADED
    scheduler.abort(A)
    scheduler.abort(B)
    assert answers.end_of(B) == Dropped(B)
    assert answers.about(A) == (Consumed(A, TEXT),)
    scheduler.submit(Chunk(A, TEXT, "late"))
    model.gate.set()
    assert answers.end_of(A) == Dropped(A)
    scheduler.abort(C)
    answers.wait_for(lambda said: Dropped(C) in said)
    assert answers.about(A) == (Consumed(A, TEXT), Dropped(A))
    assert model.batches == ["a0"]
    assert scheduler.load() == Load(0, 0)


def test_sessions_are_opened_computed_and_finished_in_one_thread_beside_the_loop(
    make: Make, model: Synthesiser
) -> None:
    answers = running(make(StreamBatchLimits(1)), *whole(A, "a", "b"), *whole(B, "c"))
    for key in (A, B):
        answers.end_of(key)
    assert model.threads == {"voice-compute_0"}


def test_no_more_sessions_are_open_than_there_are_places(make: Make, model: Synthesiser) -> None:
    scheduler = make(max_running=1)
    answers = running(scheduler, new(A), Chunk(A, TEXT, "a"), *whole(B, "b"), *whole(C))
    answers.wait_for(lambda said: Emit(A, "A") in said)
    assert scheduler.load() == Load(1, 2)
    assert model.opened == ["a"]
    scheduler.submit(Done(A, TEXT))
    assert (answers.end_of(B), answers.end_of(C)) == (Result(B, 1), Result(C, 0))
    assert model.opened == ["a", "b", "c"]


def test_a_batch_that_hangs_holds_the_heartbeat_back(make: Make, model: Synthesiser) -> None:
    model.gate.clear()
    scheduler = make()
    answers = running(scheduler, *whole(A, "a"))
    assert model.entered.acquire(timeout=ENOUGH)
    scheduler.abort(B)
    answers.end_of(B)
    now = time.monotonic()
    assert scheduler.last_step() <= now
    model.gate.set()
    answers.end_of(A)
    scheduler.abort(C)
    answers.end_of(C)
    assert scheduler.last_step() > now


def test_stop_waits_for_the_batch_under_way_and_closes_all_sessions(make: Make, model: Synthesiser) -> None:
    model.gate.clear()
    scheduler = make()
    running(scheduler, *whole(A, "a"), new(B), Chunk(B, TEXT, "b"))
    assert model.entered.acquire(timeout=ENOUGH)
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    assert stopping.is_alive()
    assert model.closed == []
    model.gate.set()
    stopping.join(ENOUGH)
    assert not stopping.is_alive()
    assert sorted(model.closed) == ["a", "b"]


class Steps(StageMeter):
    def __init__(self) -> None:
        super().__init__("voice")
        self.steps: list[tuple[RequestKey, ...]] = []

    def step(self, keys: Sequence[RequestKey], seconds: float) -> None:
        super().step(keys, seconds)
        self.steps.append(tuple(keys))


def test_the_meter_is_told_of_each_item_of_a_batch_that_is_work(make: Make) -> None:
    meter = Steps()
    answers = running(make(meter=meter), *whole(A, "a", "", "b"), *whole(B, "c"), *whole(C, ""))
    for key in (A, B, C):
        answers.end_of(key)
    assert meter.steps == [(A, B, A)]
