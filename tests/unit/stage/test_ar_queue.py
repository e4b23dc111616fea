"""The rules of the autoregressive queue: as examples, and against every order of events that hypothesis finds."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omni_common.request import RequestKey
from omni_stage.core.ar_queue import ArQueue
from omni_stage.scheduler.ar_contract import Batch

A, B, C, D = (RequestKey(name) for name in "abcd")


def always(_: RequestKey) -> bool:
    return True


def queue_of(*keys: RequestKey, max_running: int = 2, max_resident: int | None = None) -> ArQueue:
    queue = ArQueue(max_running=max_running, max_waiting=8, max_resident=max_resident)
    assert all(queue.admit(key) for key in keys)
    return queue


def step(queue: ArQueue) -> Batch | None:
    batch = queue.next_batch(always)
    if batch is not None:
        queue.stepped(batch)
    return batch


def test_a_prompt_runs_beside_the_tokens_of_the_others() -> None:
    queue = queue_of(A, B, max_running=4)
    assert [step(queue), step(queue), step(queue)] == [Batch((A,), ()), Batch((B,), (A,)), Batch((), (A, B))]


def test_a_full_batch_takes_no_prompt_until_a_sequence_ends() -> None:
    queue = queue_of(A, B, C)
    step(queue)
    step(queue)
    assert step(queue) == Batch((), (A, B))
    queue.end(A)
    assert step(queue) == Batch((C,), (B,))


def test_a_paused_sequence_lends_its_place_and_all_take_turns_when_it_comes_back() -> None:
    queue = queue_of(A, B, C)
    step(queue)
    step(queue)
    queue.pause(A)
    assert step(queue) == Batch((C,), (B,))
    queue.resume(A)
    assert [step(queue), step(queue), step(queue)] == [Batch((), (A, B)), Batch((), (C, A)), Batch((), (B, C))]


def test_no_more_caches_are_made_than_there_may_be() -> None:
    queue = queue_of(A, B, C, max_resident=2)
    step(queue)
    step(queue)
    queue.pause(A)
    queue.pause(B)
    assert step(queue) is None


def test_a_request_that_cannot_start_is_passed_by_the_next_one() -> None:
    queue = queue_of(A, B)
    assert queue.next_batch(lambda key: key != A) == Batch((B,), ())


def test_a_request_is_refused_when_all_places_are_taken_and_admitted_when_one_is_free() -> None:
    queue = ArQueue(max_running=1, max_waiting=1)
    assert [queue.admit(A), queue.admit(B), queue.admit(C)] == [True, True, False]
    assert queue.end(A)
    assert not queue.end(A)
    assert queue.admit(C)


def test_another_attempt_is_another_request() -> None:
    queue = queue_of(A)
    assert RequestKey("a", attempt=1) not in queue


@pytest.mark.parametrize(("max_running", "max_resident", "max_prefill"), [(0, 1, 1), (2, 1, 1), (2, 4, 3), (2, 4, 0)])
def test_limits_that_contradict_each_other_are_refused(max_running: int, max_resident: int, max_prefill: int) -> None:
    with pytest.raises(ValueError, match="limits"):
        ArQueue(max_running=max_running, max_waiting=1, max_resident=max_resident, max_prefill=max_prefill)


MAX_RUNNING, MAX_WAITING, MAX_RESIDENT, MAX_PREFILL = 3, 4, 5, 2


class ArQueueMachine(RuleBasedStateMachine):
    """Any order of arrivals, steps, pauses, shortages and aborts, against a model that knows only the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ArQueue(
            max_running=MAX_RUNNING, max_waiting=MAX_WAITING, max_resident=MAX_RESIDENT, max_prefill=MAX_PREFILL
        )
        self.made = 0
        self.tokens_left: dict[RequestKey, int] = {}
        self.prefilled: set[RequestKey] = set()
        self.paused: set[RequestKey] = set()
        self.starved: set[RequestKey] = set()
        self.passed_over: dict[RequestKey, int] = {}

    def can_go_on(self, key: RequestKey) -> bool:
        return key not in self.paused and key not in self.starved

    @rule(tokens=st.integers(1, 6), starved=st.booleans())
    def arrive(self, tokens: int, starved: bool) -> None:
        key = RequestKey(f"r{self.made}")
        self.made += 1
        admitted = self.queue.admit(key)
        assert admitted == (len(self.tokens_left) < MAX_RUNNING + MAX_WAITING)
        if admitted:
            self.tokens_left[key] = tokens
            if starved:
                self.starved.add(key)

    @precondition(lambda self: self.tokens_left)
    @rule(data=st.data())
    def toggle_pause(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.tokens_left)))
        if key in self.paused:
            self.paused.discard(key)
            self.queue.resume(key)
        else:
            self.paused.add(key)
            self.queue.pause(key)

    @precondition(lambda self: self.tokens_left)
    @rule(data=st.data())
    def toggle_input(self, data: st.DataObject) -> None:
        self.starved ^= {data.draw(st.sampled_from(sorted(self.tokens_left)))}

    @precondition(lambda self: self.tokens_left)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.tokens_left))))

    @rule()
    def step(self) -> None:
        batch = self.queue.next_batch(lambda key: key not in self.starved)
        able = [key for key in self.tokens_left if self.can_go_on(key)]
        if batch is None:
            residents_full = len(self.prefilled) == MAX_RESIDENT
            assert all(key not in self.prefilled and residents_full for key in able)
            return
        self.check(batch, able)
        self.queue.stepped(batch)
        self.prefilled.update(batch.prefill)
        for key in (*batch.prefill, *batch.decode):
            self.tokens_left[key] -= 1
            if self.tokens_left[key] == 0:
                self.end(key)

    def check(self, batch: Batch, able: list[RequestKey]) -> None:
        members = (*batch.prefill, *batch.decode)
        assert len(set(members)) == len(members) <= MAX_RUNNING
        assert set(members) <= set(able)
        assert self.prefilled.issuperset(batch.decode)
        assert self.prefilled.isdisjoint(batch.prefill)
        room = min(MAX_PREFILL, MAX_RUNNING - len(batch.decode), MAX_RESIDENT - len(self.prefilled))
        assert list(batch.prefill) == [key for key in able if key not in self.prefilled][:room]
        for key in self.prefilled:
            skipped = self.can_go_on(key) and key not in batch.decode
            self.passed_over[key] = self.passed_over.get(key, 0) + 1 if skipped else 0
            assert self.passed_over[key] <= (MAX_RESIDENT - 1) // MAX_RUNNING

    def end(self, key: RequestKey) -> None:
        assert self.queue.end(key), "a request ends once"
        assert not self.queue.end(key)
        for members in (self.prefilled, self.paused, self.starved):
            members.discard(key)
        self.passed_over.pop(key, None)
        del self.tokens_left[key]

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.resident == len(self.prefilled) <= MAX_RESIDENT
        assert self.queue.waiting == len(self.tokens_left) - len(self.prefilled)
        assert set(self.queue.keys) == set(self.tokens_left)

    def teardown(self) -> None:
        """With input and a way out for everyone, all requests come to their end."""
        self.starved.clear()
        for key in list(self.paused):
            self.queue.resume(key)
        self.paused.clear()
        for _ in range(6 * (MAX_RUNNING + MAX_WAITING)):
            self.step()
        assert not self.tokens_left


TestEveryOrderOfEvents = ArQueueMachine.TestCase
TestEveryOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
