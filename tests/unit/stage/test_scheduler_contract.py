"""What the IO shell may rely on, whichever scheduler a stage has (see `scheduler.contract`).

Every kind is given the same requests: so many chunks, one after the other, as far as its kind has chunks at all.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence

import pytest

from omni_common.errors import Reason
from omni_common.request import GenerationParams, RequestKey
from omni_stage.core.stream_batch_queue import StreamBatchLimits
from omni_stage.scheduler.ar import ArScheduler
from omni_stage.scheduler.ar_contract import Batch, NoCaches
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
    Outgoing,
    Pause,
    Result,
    Resume,
    Scheduler,
)
from omni_stage.scheduler.producing import ProducingScheduler
from omni_stage.scheduler.simple import SimpleScheduler
from omni_stage.scheduler.stream_batch import Item, StreamBatchScheduler
from omni_stage.scheduler.streaming import StreamScheduler
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C = (RequestKey(name) for name in "abc")
SOURCE = "thinker"


class Gate:
    """All work of all fakes goes through here; a request for "broken" breaks."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._came = threading.Semaphore(0)

    def shut(self) -> None:
        self._open.clear()
        while self._came.acquire(blocking=False):
            pass

    def open(self) -> None:
        self._open.set()

    def wait_until_someone_came(self) -> None:
        assert self._came.acquire(timeout=ENOUGH)

    def work(self, *payloads: object) -> None:
        self._came.release()
        assert self._open.wait(ENOUGH)
        if "broken" in payloads:
            raise RuntimeError("This model is broken.")


class Session:
    """Passes chunks on; serves both kinds of schedulers that have sessions."""

    def __init__(self, gate: Gate, request: NewRequest) -> None:
        self._gate = gate
        self.payload = request.payload

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        self._gate.work(self.payload)
        return chunks

    def finish(self) -> tuple[Sequence[object], object]:
        return (), None

    def close(self) -> None: ...


class Runner(NoCaches):
    """Counts up to the payload, one token a step."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._payloads: dict[RequestKey, object] = {}
        self._made: dict[RequestKey, int] = {}

    def open(self, request: NewRequest) -> None:
        self._payloads[request.key], self._made[request.key] = request.payload, 0

    def feed(self, key: RequestKey, source: str, chunk: object) -> None:
        raise AssertionError("it has no streams in")

    def close_input(self, key: RequestKey, source: str) -> None:
        raise AssertionError("it has no streams in")

    def ready(self, key: RequestKey) -> bool:
        return True

    def execute(self, batch: Batch) -> Sequence[Outgoing]:
        keys = (*batch.prefill, *batch.decode)
        self._gate.work(*(self._payloads[key] for key in keys))
        return [answer for key in keys for answer in self._advance(key)]

    def close(self, key: RequestKey) -> None:
        self._payloads.pop(key, None)

    def _advance(self, key: RequestKey) -> Iterator[Outgoing]:
        made = self._made[key]
        self._made[key] += 1
        yield Emit(key, made)
        if made + 1 == self._payloads[key]:
            yield Result(key, None)


def simple(gate: Gate, max_running: int, max_waiting: int) -> Scheduler:
    def compute(request: NewRequest) -> object:
        gate.work(request.payload)
        return None

    return SimpleScheduler(compute, stage="any", max_waiting=max_waiting, threads=max_running)


def ar(gate: Gate, max_running: int, max_waiting: int) -> Scheduler:
    return ArScheduler(Runner(gate), stage="any", max_running=max_running, max_waiting=max_waiting)


def streaming(gate: Gate, max_running: int, max_waiting: int) -> Scheduler:
    def session(request: NewRequest) -> Session:
        return Session(gate, request)

    return StreamScheduler(session, stage="any", max_running=max_running, max_waiting=max_waiting)


def producing(gate: Gate, max_running: int, max_waiting: int) -> Scheduler:
    def pieces(request: NewRequest) -> Iterator[object]:
        gate.work(request.payload)
        assert isinstance(request.payload, int)
        yield from range(request.payload)

    return ProducingScheduler(pieces, stage="any", max_running=max_running, max_waiting=max_waiting)


def stream_batch(gate: Gate, max_running: int, max_waiting: int) -> Scheduler:
    def session(request: NewRequest) -> Session:
        return Session(gate, request)

    def compute(items: Sequence[Item[Session]]) -> Sequence[Sequence[object]]:
        gate.work(*(item.session.payload for item in items))
        return [[item.chunk] for item in items]

    return StreamBatchScheduler(
        session,
        compute,
        stage="any",
        max_running=max_running,
        max_waiting=max_waiting,
        limits=StreamBatchLimits(4),
        cost=lambda chunk: 1.0,
    )


Kind = Callable[[Gate, int, int], Scheduler]
WITH_STREAMS_IN: tuple[Kind, ...] = (streaming, stream_batch)
WITH_STREAMS_OUT: tuple[Kind, ...] = (ar, streaming, producing, stream_batch)
BESIDE_THE_LOOP: tuple[Kind, ...] = (simple, producing, stream_batch)
ALL: tuple[Kind, ...] = (simple, *WITH_STREAMS_OUT)


@pytest.fixture
def gate() -> Gate:
    return Gate()


Make = Callable[..., Scheduler]


@pytest.fixture
def make(gate: Gate) -> Iterator[Make]:
    made: list[Scheduler] = []

    def build(kind: Kind, max_running: int = 2, max_waiting: int = 4) -> Scheduler:
        made.append(kind(gate, max_running, max_waiting))
        return made[-1]

    yield build
    gate.open()
    for scheduler in made:
        scheduler.stop()


def whole(kind: Kind, key: RequestKey, chunks: int = 1, *, broken: bool = False) -> tuple[Incoming, ...]:
    """All that is ever said to a scheduler of this kind about a request."""
    begin = NewRequest(key, GenerationParams(), "broken" if broken else chunks)
    if kind not in WITH_STREAMS_IN:
        return (begin,)
    return (begin, *(Chunk(key, SOURCE, chunk) for chunk in range(chunks)), Done(key, SOURCE))


def running(scheduler: Scheduler, *items: Incoming) -> Answers:
    """The answers of a scheduler that finds these items in its inbox when it starts."""
    submit(scheduler, *items)
    answers = Answers()
    scheduler.start(answers)
    return answers


def submit(scheduler: Scheduler, *items: Incoming) -> None:
    for item in items:
        scheduler.submit(item)


@pytest.mark.parametrize("kind", ALL)
def test_each_of_many_requests_gets_its_chunks_in_order_and_ends_once(make: Make, kind: Kind) -> None:
    keys = [RequestKey(f"r{i}") for i in range(20)]
    scheduler = make(kind, max_running=3, max_waiting=20)
    answers = running(scheduler, *(item for i, key in enumerate(keys) for item in whole(kind, key, 1 + i % 5)))
    for i, key in enumerate(keys):
        count = 1 + i % 5
        assert answers.end_of(key) == Result(key, None)
        said = answers.about(key)
        assert said[-1] == Result(key, None)
        assert sum(isinstance(answer, Result | Failed | Dropped) for answer in said) == 1
        assert answers.chunks(key) == (tuple(range(count)) if kind in WITH_STREAMS_OUT else ())
        credits = sum(answer.count for answer in said if isinstance(answer, Consumed))
        assert credits == (count if kind in WITH_STREAMS_IN else 0)
    assert scheduler.load() == Load(0, 0)


@pytest.mark.parametrize("kind", ALL)
def test_who_finds_no_place_is_refused_and_the_others_are_served(make: Make, kind: Kind) -> None:
    keys = [RequestKey(f"r{i}") for i in range(5)]
    scheduler = make(kind, max_running=1, max_waiting=3)
    answers = running(scheduler, *(item for key in keys for item in whole(kind, key)))
    refused = answers.end_of(keys[-1])
    assert isinstance(refused, Failed)
    assert (refused.error.reason, refused.error.stage) == (Reason.OVERLOADED, "any")
    assert [answers.end_of(key) for key in keys[:-1]] == [Result(key, None) for key in keys[:-1]]
    submit(scheduler, *whole(kind, A))
    assert answers.end_of(A) == Result(A, None)


@pytest.mark.parametrize("kind", BESIDE_THE_LOOP)
def test_refusals_and_drops_are_answered_while_the_model_works(make: Make, gate: Gate, kind: Kind) -> None:
    gate.shut()
    scheduler = make(kind, max_running=1, max_waiting=1)
    answers = running(scheduler, *whole(kind, A))
    gate.wait_until_someone_came()
    submit(scheduler, *whole(kind, B), *whole(kind, C))
    assert isinstance(answers.end_of(C), Failed)
    scheduler.abort(B)
    assert answers.end_of(B) == Dropped(B)
    assert scheduler.load() == Load(1, 0)


@pytest.mark.parametrize("kind", ALL)
def test_an_abort_at_any_time_is_answered_dropped_and_nothing_else_follows(make: Make, gate: Gate, kind: Kind) -> None:
    gate.shut()
    scheduler = make(kind, max_running=1)
    answers = running(scheduler, *whole(kind, A, 3))
    gate.wait_until_someone_came()
    submit(scheduler, *whole(kind, B))
    for key in (A, A, B, C):  # at work, twice; waiting; never here
        scheduler.abort(key)
    submit(scheduler, Chunk(A, SOURCE, 3), Resume(A))
    gate.open()
    for key in (A, B, C):
        assert answers.end_of(key) == Dropped(key)
    again = RequestKey("a", attempt=1)
    submit(scheduler, *whole(kind, again, 2))
    assert answers.end_of(again) == Result(again, None)
    for key in (A, B, C):
        assert [answer for answer in answers.about(key) if not isinstance(answer, Consumed)] == [Dropped(key)]
    assert scheduler.load() == Load(0, 0)


@pytest.mark.parametrize("kind", ALL)
def test_what_breaks_the_model_fails_its_request_and_not_the_next(
    make: Make, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make(kind)
    answers = running(scheduler, *whole(kind, A, broken=True))
    failed = answers.end_of(A)
    assert isinstance(failed, Failed)
    assert (failed.error.reason, failed.error.stage) == (Reason.STAGE_FAILED, "any")
    submit(scheduler, *whole(kind, B, 2))
    assert answers.end_of(B) == Result(B, None)
    assert answers.about(A)[-1] == failed
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.parametrize("kind", ALL)
def test_what_comes_after_the_end_is_ignored_and_a_late_abort_answered(make: Make, kind: Kind) -> None:
    scheduler = make(kind)
    answers = running(scheduler, *whole(kind, A))
    answers.end_of(A)
    before = answers.about(A)
    submit(scheduler, Chunk(A, SOURCE, 9), Done(A, SOURCE), Pause(A), Resume(A))
    scheduler.abort(A)
    answers.wait_for(lambda said: Dropped(A) in said)
    assert answers.about(A) == (*before, Dropped(A))


@pytest.mark.parametrize("kind", WITH_STREAMS_OUT)
def test_a_paused_request_makes_no_chunks_until_it_is_resumed(make: Make, kind: Kind) -> None:
    scheduler = make(kind)
    answers = running(scheduler, *whole(kind, A, 3), Pause(A), *whole(kind, B, 3))
    assert answers.end_of(B) == Result(B, None)
    assert answers.about(A) == ()
    scheduler.submit(Resume(A))
    assert answers.end_of(A) == Result(A, None)
    assert answers.chunks(A) == (0, 1, 2)


@pytest.mark.parametrize("kind", ALL)
def test_the_heartbeat_stands_still_while_the_model_hangs_and_goes_on_after_it(
    make: Make, gate: Gate, kind: Kind
) -> None:
    gate.shut()
    scheduler = make(kind)
    answers = running(scheduler, *whole(kind, A))
    gate.wait_until_someone_came()
    now = time.monotonic()
    for key in (B, C):
        scheduler.abort(key)  # what the loop does beside it is no sign of life
    if kind in BESIDE_THE_LOOP:
        answers.end_of(C)
    assert scheduler.last_step() <= now
    gate.open()
    answers.end_of(A)
    scheduler.abort(A)
    answers.wait_for(lambda said: Dropped(A) in said)
    assert scheduler.last_step() > now


@pytest.mark.parametrize("kind", ALL)
def test_stop_waits_for_the_work_under_way_and_begins_no_more(make: Make, gate: Gate, kind: Kind) -> None:
    gate.shut()
    scheduler = make(kind, max_running=1)
    answers = running(scheduler, *whole(kind, A))
    gate.wait_until_someone_came()
    submit(scheduler, *whole(kind, B))
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    assert stopping.is_alive()
    gate.open()
    stopping.join(ENOUGH)
    assert not stopping.is_alive()
    assert answers.about(B) == ()


class Leased:
    """Something in shared memory, which is given back when nobody holds it any more."""


@pytest.mark.parametrize("kind", ALL)
def test_an_idle_scheduler_holds_nothing_of_what_it_was_given(make: Make, kind: Kind) -> None:
    scheduler = make(kind)
    ended, given_back = threading.Event(), threading.Semaphore(0)

    def outbox(said: Sequence[Outgoing]) -> None:
        if any(isinstance(answer, Result) for answer in said):
            ended.set()

    def leased() -> Leased:
        made = Leased()
        weakref.finalize(made, given_back.release)
        return made

    params = GenerationParams(stage_sampling={"lease": leased()})  # type: ignore[dict-item]
    submit(scheduler, NewRequest(A, params, 1))
    if kind in WITH_STREAMS_IN:
        submit(scheduler, Chunk(A, SOURCE, leased()), Done(A, SOURCE))
    del params
    scheduler.start(outbox)
    assert ended.wait(ENOUGH)
    for _ in range(2 if kind in WITH_STREAMS_IN else 1):
        assert given_back.acquire(timeout=ENOUGH)
