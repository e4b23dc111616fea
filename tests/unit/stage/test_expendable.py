"""Calls that may never return, and what is left of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from omni_common.deadline import Deadline
from omni_stage.components.expendable import MAX_LEFT, Expected, Expendable, Stuck

SOON = 0.01


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Waited for by what hangs, until the test is over."""
    never = threading.Event()
    yield never
    never.set()


def test_calls_run_one_after_the_other_in_a_prepared_thread_of_their_own() -> None:
    prepared: list[int] = []
    thread = Expendable("test", lambda: prepared.append(threading.get_ident()))
    idents = [thread.call(threading.get_ident, Deadline.after(10.0)) for _ in range(3)]
    assert idents == prepared * 3
    assert threading.get_ident() not in idents
    thread.close()


def test_what_a_call_may_raise_is_raised_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise Expected("by rights")

    thread = Expendable("test")
    with pytest.raises(Expected, match="by rights"):
        thread.call(fail, Deadline.after(10.0))
    assert thread.call(lambda: 1, Deadline.after(10.0)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_dies_of_a_bug_is_noticed_at_once_and_the_next_one_has_a_new_thread() -> None:
    thread = Expendable("test")
    with pytest.raises(Stuck, match="unexpected"):
        thread.call(lambda: 1 // 0, Deadline.after(10.0))
    assert thread.call(lambda: 1, Deadline.after(10.0)) == 1


def test_a_call_that_hangs_is_interrupted_and_left_behind(never: threading.Event) -> None:
    thread = Expendable("test", grace=SOON)
    interrupted = threading.Event()
    with pytest.raises(Stuck):
        thread.call(never.wait, Deadline.after(SOON), interrupt=interrupted.set)
    assert interrupted.is_set()
    assert thread.call(lambda: 1, Deadline.after(10.0)) == 1


def test_a_call_that_ends_when_it_is_interrupted_is_no_loss() -> None:
    thread, told = Expendable("test", grace=10.0), threading.Event()
    assert thread.call(told.wait, Deadline.after(10.0), is_vain=lambda: True, interrupt=told.set)


def test_no_more_than_a_few_threads_are_left_behind_and_those_that_return_do_not_count(never: threading.Event) -> None:
    thread, first = Expendable("test", grace=SOON), threading.Event()
    for event in [first, *[never] * (MAX_LEFT - 1)]:
        with pytest.raises(Stuck, match="got stuck"):
            thread.call(event.wait, Deadline.after(SOON))
    with pytest.raises(Stuck, match="given up"):
        thread.call(lambda: 1, Deadline.after(10.0))
    first.set()
    deadline = Deadline.after(10.0)
    while not deadline.passed:
        try:
            assert thread.call(lambda: 1, Deadline.after(10.0)) == 1
        except Stuck:
            continue
        return
    raise AssertionError("the one that returned still counts")
