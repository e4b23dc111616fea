"""Who is in the next batch over streams: as examples, and against every order of events that hypothesis finds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omni_common.request import RequestKey
from omni_stage.core.stream_batch_queue import (
    FAIR_EVERY,
    BatchItem,
    BatchStep,
    StreamBatchLimits,
    StreamBatchQueue,
)

A, B, C = (RequestKey(name) for name in "abc")
TEXT = "text"


def queue_of(
    limits: StreamBatchLimits,
    costs: dict[RequestKey, tuple[float, ...]],
    *,
    max_running: int = 8,
    one_per_request: bool = False,
) -> StreamBatchQueue:
    queue = StreamBatchQueue(limits, max_running=max_running, max_waiting=8, one_per_request=one_per_request)
    for key, each in costs.items():
        assert queue.admit(key)
        for cost in each:
            queue.push(key, TEXT, f"{key.request_id}{cost}", cost)
    return queue


def names(step: BatchStep | None) -> str:
    """The items of the step, such as "a0 b0 a1"."""
    return " ".join(f"{item.key.request_id}{item.index}" for item in step.items) if step is not None else "nothing"


def batches(queue: StreamBatchQueue) -> list[str]:
    made = []
    while (step := queue.next_step()) is not None:
        made.append(names(step))
    return made


@pytest.mark.parametrize(
    ("limits", "costs", "expected"),
    [
        pytest.param(StreamBatchLimits(), {A: (1, 1), B: (1,)}, ["a0", "b0", "a1"], id="one at a time by default"),
        pytest.param(
            StreamBatchLimits(4), {A: (1, 1, 1), B: (1,), C: (1, 1)}, ["a0 b0 c0 a1", "c1 a2"],
            id="everybody's first, then further ones, then whoever has had less",
        ),
        pytest.param(
            StreamBatchLimits(9, max_cost=8), {A: (2,), B: (4,), C: (2,)}, ["a0 b0", "c0"],
            id="a batch costs what its dearest item costs, times their number",
        ),
        pytest.param(
            StreamBatchLimits(9, max_cost=8), {A: (9,), B: (1,)}, ["a0", "b0"], id="what is too dear goes alone"
        ),
        pytest.param(
            StreamBatchLimits(9, max_spread=2), {A: (2,), B: (5,), C: (1,)}, ["a0 c0", "b0"],
            id="what would be padded too far, or pad others too far, stays out",
        ),
        pytest.param(
            StreamBatchLimits(9, max_spread=2), {A: (4,), B: (2,), C: (1,)}, ["a0 b0", "c0"],
            id="the spread is that of the batch, not that to its leader",
        ),
        pytest.param(
            StreamBatchLimits(9, max_spread=2), {A: (1,), B: (9, 1), C: (1,)}, ["a0 c0", "b0", "b1"],
            id="an item that does not fit is not overtaken by those behind it",
        ),
        pytest.param(
            StreamBatchLimits(1, max_cost=1, max_spread=1), {A: (0, 1), B: (0, 1)}, ["a0 a1 b0", "b1"],
            id="what costs nothing takes no room",
        ),
        pytest.param(
            StreamBatchLimits(1), {A: (1, 0), B: (0, 0, 1, 1)}, ["a0 b0 b1 a1", "b2", "b3"],
            id="and goes on at once",
        ),
    ],
)  # fmt: skip
def test_batches(limits: StreamBatchLimits, costs: dict[RequestKey, tuple[float, ...]], expected: list[str]) -> None:
    assert batches(queue_of(limits, costs)) == expected


def test_one_item_of_each_request_where_asked_for() -> None:
    queue = queue_of(StreamBatchLimits(9), {A: (1, 1), B: (1,)}, one_per_request=True)
    assert batches(queue) == ["a0 b0", "a1"]


def test_the_first_item_of_a_late_request_leads_the_batch() -> None:
    queue = queue_of(StreamBatchLimits(2), {A: (1, 1, 1, 1)})
    assert names(queue.next_step()) == "a0 a1"
    assert queue.admit(B)
    queue.push(B, TEXT, "late", 1)
    assert names(queue.next_step()) == "b0 a2"


def test_a_request_that_does_not_fit_by_spread_leads_as_soon_as_it_has_had_the_least() -> None:
    queue = queue_of(StreamBatchLimits(2, max_spread=1), {A: (1,) * 6, B: (9,) * 6, C: (1,) * 6})
    assert [names(queue.next_step()) for _ in range(3)] == ["a0 c0", "b0 b1", "a1 c1"]


def test_a_flood_of_newcomers_holds_nobody_back() -> None:
    """One is always there that has had less than `a`."""
    queue = queue_of(StreamBatchLimits(1), {A: (1,) * 4})
    led: list[RequestKey] = []
    for number in range(3 * FAIR_EVERY):
        newcomer = RequestKey(f"n{number}")
        if not queue.waiting:
            assert queue.admit(newcomer)
            queue.push(newcomer, TEXT, None, 1)
        step = queue.next_step()
        assert step is not None
        led += step.keys
        if step.keys != (A,):
            assert queue.end(*step.keys)
    assert [number for number, key in enumerate(led) if key == A] == [0, 3, 7, 11]


def test_a_request_ends_with_its_last_item_and_one_without_items_at_once() -> None:
    queue = queue_of(StreamBatchLimits(1), {A: (1, 1), B: ()})
    queue.done(A, TEXT)
    assert queue.next_step() == BatchStep((BatchItem(A, TEXT, "a1", 0, 1),), ())
    queue.done(B, TEXT)
    step = queue.next_step()
    assert step is not None
    assert (names(step), set(step.ending), set(step.keys)) == ("a1", {A, B}, {A, B})


def test_a_request_with_two_sources_is_not_over_before_both_are_done() -> None:
    queue = StreamBatchQueue(StreamBatchLimits(), max_running=1, max_waiting=1, sources=2)
    assert queue.admit(A)
    queue.done(A, "left")
    assert queue.next_step() is None
    queue.done(A, "right")
    assert queue.next_step() == BatchStep((), (A,))


def test_a_paused_request_contributes_nothing_and_does_not_end() -> None:
    queue = queue_of(StreamBatchLimits(9), {A: (1,), B: (1,), C: ()})
    for key in (A, C):
        queue.done(key, TEXT)
        queue.pause(key)
    assert [names(queue.next_step()), names(queue.next_step())] == ["b0", "nothing"]
    queue.resume(A)
    step = queue.next_step()
    assert step is not None
    assert (names(step), step.ending) == ("a0", (A,))


def test_no_more_requests_have_begun_than_there_are_places_and_the_idle_take_none() -> None:
    queue = queue_of(StreamBatchLimits(9), {A: (), B: (1,), C: (1,)}, max_running=1)
    assert (names(queue.next_step()), names(queue.next_step())) == ("b0", "nothing")
    assert (queue.running, queue.waiting) == (1, 2)
    assert queue.end(B)
    assert names(queue.next_step()) == "c0"


@pytest.mark.parametrize(("max_batch", "max_spread"), [(0, None), (1, 0.5)])
def test_limits_that_let_nothing_through_are_refused(max_batch: int, max_spread: float | None) -> None:
    with pytest.raises(ValueError, match="limits"):
        StreamBatchLimits(max_batch, max_spread=max_spread)


def test_a_stage_without_sources_or_places_is_refused() -> None:
    for max_running, sources in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            StreamBatchQueue(StreamBatchLimits(), max_running=max_running, max_waiting=1, sources=sources)


LIMITS = st.builds(
    StreamBatchLimits,
    max_batch=st.integers(1, 5),
    max_cost=st.none() | st.sampled_from([4.0, 12.0, 40.0]),
    max_spread=st.none() | st.sampled_from([1.0, 2.0, 3.0]),
)
COSTS = st.sampled_from([0.0, 1.0, 1.5, 2.0, 5.0, 9.0])


def may_be_together(limits: StreamBatchLimits, costs: list[float]) -> bool:
    """The rule itself, written without counting along."""
    costs = [cost for cost in costs if cost]
    if len(costs) <= 1:
        return True
    return (
        len(costs) <= limits.max_batch
        and (limits.max_cost is None or len(costs) * max(costs) <= limits.max_cost)
        and (limits.max_spread is None or max(costs) <= limits.max_spread * min(costs))
    )


@settings(deadline=None)
@given(limits=LIMITS, each=st.lists(st.lists(COSTS, max_size=6), max_size=6), one=st.booleans())
def test_all_that_is_there_is_computed_once_and_in_order(
    limits: StreamBatchLimits, each: list[list[float]], one: bool
) -> None:
    keys = [RequestKey(f"r{i}") for i in range(len(each))]
    queue = queue_of(limits, {k: tuple(c) for k, c in zip(keys, each, strict=True)}, one_per_request=one)
    got: dict[RequestKey, list[tuple[int, float]]] = {key: [] for key in keys}
    while (step := queue.next_step()) is not None:
        assert step.items, "a step without items and without an end would never stop"
        for item in step.items:
            got[item.key].append((item.index, item.cost))
    assert got == {key: list(enumerate(costs)) for key, costs in zip(keys, each, strict=True)}


class StreamBatchMachine(RuleBasedStateMachine):
    """Any order of arrivals, chunks, ends, pauses, aborts and batches, against a model that knows only the rules."""

    MAX_RUNNING, MAX_WAITING = 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.queue: StreamBatchQueue | None = None
        self.made = 0
        self.items: dict[RequestKey, list[float]] = {}  # not computed yet; the requests in order of arrival
        self.taken: dict[RequestKey, int] = {}
        self.computed: dict[RequestKey, int] = {}  # of those taken, what was work
        self.since: dict[
            RequestKey, int
        ] = {}  # how many batches of work there had been when it came or was last in one
        self.passed: dict[RequestKey, int] = {}  # how many went by while it could have been in
        self.batches = 0
        self.begun: set[RequestKey] = set()
        self.paused: set[RequestKey] = set()
        self.done: set[RequestKey] = set()

    @precondition(lambda self: self.queue is None)
    @rule(limits=LIMITS, one=st.booleans())
    def open(self, limits: StreamBatchLimits, one: bool) -> None:
        self.limits, self.one = limits, one
        self.queue = StreamBatchQueue(
            limits, max_running=self.MAX_RUNNING, max_waiting=self.MAX_WAITING, one_per_request=one
        )

    @precondition(lambda self: self.queue is not None)
    @rule(costs=st.lists(COSTS, max_size=4))
    def arrive(self, costs: list[float]) -> None:
        assert self.queue is not None
        key = RequestKey(f"r{self.made}")
        self.made += 1
        admitted = self.queue.admit(key)
        assert admitted == (len(self.items) < self.MAX_RUNNING + self.MAX_WAITING)
        if admitted:
            self.items[key], self.taken[key], self.computed[key] = [], 0, 0
            self.since[key], self.passed[key] = self.batches, 0
            self.push(key, costs)

    @precondition(lambda self: self.items)
    @rule(data=st.data(), costs=st.lists(COSTS, min_size=1, max_size=4))
    def continue_stream(self, data: st.DataObject, costs: list[float]) -> None:
        key = self.some(data)
        if key not in self.done:
            self.push(key, costs)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def end_stream(self, data: st.DataObject) -> None:
        self.finish(self.some(data))

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def toggle_pause(self, data: st.DataObject) -> None:
        assert self.queue is not None
        key = self.some(data)
        (self.queue.resume if key in self.paused else self.queue.pause)(key)
        self.paused ^= {key}

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.forget(self.some(data))

    @precondition(lambda self: self.queue is not None)
    @rule()
    def step(self) -> None:
        assert self.queue is not None
        able = self.able()
        step = self.queue.next_step()
        if step is None:
            assert not able
            return
        self.check_fit(step, able)
        for item in step.items:
            assert item.key not in self.paused
            assert (item.index, item.cost) == (self.taken[item.key], self.items[item.key].pop(0))
            self.taken[item.key] += 1
            self.computed[item.key] += item.cost > 0
        self.begun.update(step.keys)
        assert len(self.begun) <= self.MAX_RUNNING
        self.check_no_room_is_wasted(step)
        if step.work:
            self.check_nobody_waits_for_ever({item.key for item in step.work}, able)
        for key in step.ending:
            assert key in self.done
            assert not self.items[key]
            self.forget(key)

    def check_fit(self, step: BatchStep, able: list[RequestKey]) -> None:
        """The batch is led by who comes first; whoever joins has been preferred to none that would have fitted."""
        costs: list[float] = []
        first: list[RequestKey] = []
        for item in step.items:
            if item.key not in first:
                passed = able[: able.index(item.key)] if item.key in able else []
                assert all(
                    key in first
                    or not self.items[key]
                    or not may_be_together(self.limits, [*costs, self.items[key][0]])
                    for key in passed
                )
                first.append(item.key)
            costs.append(item.cost)
            assert may_be_together(self.limits, costs)
        if self.one:
            assert len({item.key for item in step.work}) == len(step.work)

    def check_no_room_is_wasted(self, step: BatchStep) -> None:
        costs = [item.cost for item in step.items]
        served = set(step.keys)
        for key in self.able():
            left = self.items[key]
            if left and not (self.one and key in served):
                assert not may_be_together(self.limits, [*costs, left[0]])

    def check_nobody_waits_for_ever(self, served: set[RequestKey], able: list[RequestKey]) -> None:
        """Whoever arrives, ends or is aborted meanwhile: a request waits for those that were here before it only."""
        self.batches += 1
        for key in self.items:
            passed_over = key in able and self.items[key] and key not in served
            self.passed[key] = self.passed[key] + 1 if passed_over else 0
            assert self.passed[key] <= FAIR_EVERY * (self.MAX_RUNNING + self.MAX_WAITING)
        for key in served:
            self.since[key] = self.batches

    def able(self) -> list[RequestKey]:
        """Who has something to do and no hindrance, in the order of preference; of the new ones, who finds a place."""
        has_work = [key for key in self.items if (self.items[key] or key in self.done) and key not in self.paused]
        fresh = [key for key in has_work if key not in self.begun]
        placed = {*self.begun, *fresh[: self.MAX_RUNNING - len(self.begun)]}
        is_fair = self.batches % FAIR_EVERY == FAIR_EVERY - 1
        waited = {key: self.since[key] if is_fair else 0 for key in placed}
        return sorted((key for key in has_work if key in placed), key=lambda key: (waited[key], self.computed[key]))

    def some(self, data: st.DataObject) -> RequestKey:
        return data.draw(st.sampled_from(list(self.items)))

    def push(self, key: RequestKey, costs: list[float]) -> None:
        assert self.queue is not None
        self.items[key] += costs
        for cost in costs:
            self.queue.push(key, TEXT, None, cost)

    def finish(self, key: RequestKey) -> None:
        assert self.queue is not None
        self.queue.done(key, TEXT)
        self.done.add(key)

    def forget(self, key: RequestKey) -> None:
        assert self.queue is not None
        assert self.queue.end(key), "a request ends once"
        assert not self.queue.end(key)
        for members in (self.begun, self.paused, self.done):
            members.discard(key)
        for known in (self.items, self.taken, self.computed, self.since, self.passed):
            del known[key]

    @invariant()
    def counts_agree(self) -> None:
        if self.queue is not None:
            assert self.queue.running == len(self.begun)
            assert self.queue.waiting == len(self.items) - len(self.begun)
            assert self.queue.keys == tuple(self.items)

    def teardown(self) -> None:
        """With their inputs complete and a way out for everyone, all requests come to their end."""
        if self.queue is None:
            return
        for key in list(self.items):
            self.finish(key)
            self.queue.resume(key)
        self.paused.clear()
        for _ in range(len(self.items) + sum(map(len, self.items.values()))):
            self.step()
        assert not self.items


TestEveryOrderOfEvents = StreamBatchMachine.TestCase
TestEveryOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_request_is_due_while_items_wait_and_at_its_end() -> None:
    queue = queue_of(StreamBatchLimits(), {A: ()})
    assert not queue.is_due(A)
    queue.push(A, TEXT, "item", 1)
    assert queue.is_due(A)
    queue.next_step()
    assert not queue.is_due(A)
    queue.done(A, TEXT)
    assert queue.is_due(A)
