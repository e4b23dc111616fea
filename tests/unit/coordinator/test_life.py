"""A request over its attempts: what the caller gets when replicas are lost under it."""

from __future__ import annotations

import pytest

from omni_common.errors import OmniError, Overloaded, Reason, StageUnavailable
from omni_common.errors import StageFailed as StageError
from omni_common.request import AudioOutput, FinishReason, Modality, TerminalResult, TextOutput, Usage
from omni_coordinator.core.events import (
    AbortAcked,
    AbortReplica,
    AbortTimedOut,
    Bound,
    CallerGone,
    DeadlinePassed,
    Dispatch,
    Event,
    Fail,
    Finish,
    GrantOutput,
    OutputMade,
    OutputRead,
    Release,
    ReplicaLost,
    SendOutput,
    StageFailed,
    Stopping,
    TerminalDone,
)
from omni_coordinator.core.events import Started as Begin
from omni_coordinator.core.failover import FailedOver, Failover, Rebind, Rebound, Step, Unbound
from omni_coordinator.core.life import Life

RESULT = TerminalResult(FinishReason.STOP, Usage(completion_text_tokens=1))
CREDITS = 4


def bound(attempt: int) -> tuple[Bound, ...]:
    """Other replicas for each attempt, with numbers like 10, 11, 12 and 20, 21, 22."""
    first = 10 * (attempt + 1)
    return (
        Bound("entry", first),
        Bound("write", first + 1, Modality.TEXT),
        Bound("speak", first + 2, Modality.AUDIO),
    )


def begun(*, max_attempts: int = 3, credits: int = CREDITS) -> Life:
    life = Life("entry", bound(0), output_credits=credits, max_attempts=max_attempts)
    assert life.handle(Begin(credits)) == [(0, Dispatch(10))]
    return life


def text(attempt: int, index: int, words: str) -> OutputMade:
    return OutputMade(10 * (attempt + 1) + 1, index, TextOutput(words))


def audio(attempt: int, index: int, pcm: bytes) -> OutputMade:
    return OutputMade(10 * (attempt + 1) + 2, index, AudioOutput(pcm, 24000))


def lose(life: Life, replica: int = 10) -> list[Step]:
    """Up to the word that asks for others."""
    steps = life.handle(ReplicaLost(replica))
    assert steps[-1][1] == Rebind(frozenset({replica}))
    return steps


def rebind(life: Life) -> list[Step]:
    return life.handle(Rebound(bound(life.attempt + 1)))


def outcomes(steps: list[Step]) -> list[Failover]:
    return [command.outcome for _, command in steps if isinstance(command, FailedOver)]


def failure(steps: list[Step]) -> OmniError:
    [error] = [command.error for _, command in steps if isinstance(command, Fail)]
    return error


def test_before_any_output_a_lost_replica_is_made_up_for_by_another_attempt() -> None:
    life = begun()
    assert lose(life) == [(0, AbortReplica(11)), (0, AbortReplica(12)), (0, Rebind(frozenset({10})))]
    assert rebind(life) == [(1, FailedOver("entry", Failover.RERUN)), (1, Dispatch(20))]
    assert life.handle(text(1, 0, "hi"), 1) == [(1, SendOutput(0, TextOutput("hi")))]
    life.handle(TerminalDone(21, RESULT), 1)
    steps = life.handle(TerminalDone(22, RESULT), 1)
    assert [type(command) for _, command in steps] == [Finish, Release]
    assert not life.is_over, "the first attempt has not been answered"
    life.handle(AbortAcked(11), 0)
    assert life.handle(AbortAcked(12), 0) == [(0, Release())]
    assert life.is_over


def test_a_neighbour_that_notices_the_loss_first_names_the_stage_whose_replica_is_avoided() -> None:
    life = begun()
    steps = life.handle(StageFailed(10, StageUnavailable("write", "lost its replica")), 0)
    assert steps == [*((0, AbortReplica(n)) for n in (10, 11, 12)), (0, Rebind(frozenset({11})))]
    assert outcomes(rebind(life)) == [Failover.RERUN]
    assert life.handle(ReplicaLost(11)) == [], "it is the first attempt that it had been bound to"
    life.handle(ReplicaLost(20))


def test_a_peer_that_nobody_can_name_is_no_reason_to_avoid_anybody() -> None:
    steps = begun().handle(StageFailed(10, OmniError(Reason.STAGE_UNAVAILABLE, "A peer is gone.")), 0)
    assert steps[-1] == (0, Rebind(frozenset()))


@pytest.mark.parametrize("error", [StageError("entry"), Overloaded("Full."), OmniError(Reason.INTERNAL, "Broken.")])
def test_what_another_replica_would_not_mend_fails_the_request(error: OmniError) -> None:
    assert failure(begun().handle(StageFailed(10, error), 0)) is error


def test_what_the_caller_has_is_not_sent_again_and_the_rest_has_the_next_number() -> None:
    life = begun()
    life.handle(text(0, 0, "one two "), 0)
    life.handle(text(0, 1, "three"), 0)
    life.handle(audio(0, 0, bytes(4)), 0)
    lose(life)
    assert outcomes(rebind(life)) == []
    assert life.handle(text(1, 0, "one "), 1) == [(1, GrantOutput(21, text=1, audio=0))]
    assert life.handle(text(1, 1, "two three four"), 1) == [(1, SendOutput(2, TextOutput(" four")))]
    resumed = life.handle(audio(1, 0, bytes(6)), 1)
    assert resumed == [
        (1, SendOutput(1, AudioOutput(bytes(2), 24000))),
        (1, FailedOver("entry", Failover.RESUMED)),
        (1, GrantOutput(22, text=0, audio=1)),
    ]
    assert life.handle(text(1, 2, "!"), 1) == [(1, SendOutput(3, TextOutput("!")))]


def test_an_attempt_that_makes_something_else_ends_the_request_with_one_error() -> None:
    life = begun()
    life.handle(text(0, 0, "one two"), 0)
    lose(life)
    rebind(life)
    steps = life.handle(text(1, 0, "one too"), 1)
    assert outcomes(steps) == [Failover.DIVERGED]
    error = failure(steps)
    assert (error.reason, error.stage, error.retry_after is None) == (Reason.STAGE_UNAVAILABLE, "entry", False)
    assert [command for _, command in steps if isinstance(command, AbortReplica)] == [*map(AbortReplica, (20, 21, 22))]
    assert life.handle(text(1, 1, "more"), 1) == []


@pytest.mark.parametrize("was_done", [True, False])
def test_an_attempt_that_ends_too_soon_or_says_more_after_the_end_differs_too(was_done: bool) -> None:
    life = begun()
    life.handle(text(0, 0, "one"), 0)
    if was_done:
        life.handle(TerminalDone(11, RESULT), 0)
    lose(life)
    rebind(life)
    last = text(1, 0, "one two") if was_done else TerminalDone(21, RESULT)
    assert outcomes(life.handle(last, 1)) == [Failover.DIVERGED]


def test_a_second_loss_while_the_first_is_made_up_for_counts_as_such_and_holds_against_the_same_output() -> None:
    life = begun()
    life.handle(text(0, 0, "one two"), 0)
    lose(life)
    rebind(life)
    life.handle(text(1, 0, "one"), 1)
    steps = life.handle(ReplicaLost(20))
    assert outcomes(steps) == [Failover.INTERRUPTED]
    assert steps[-1] == (1, Rebind(frozenset({10, 20})))
    rebind(life)
    assert outcomes(life.handle(text(2, 0, "one two"), 2)) == [Failover.RESUMED]
    assert life.handle(text(2, 1, " three"), 2) == [(2, SendOutput(1, TextOutput(" three")))]


def test_the_loss_of_a_terminal_that_is_done_changes_nothing() -> None:
    life = begun()
    life.handle(text(0, 0, "all"), 0)
    life.handle(TerminalDone(11, RESULT), 0)
    assert life.handle(ReplicaLost(11)) == []
    assert [type(command) for _, command in life.handle(TerminalDone(12, RESULT), 0)] == [Finish, Release]


def test_a_terminal_that_was_done_and_is_gone_is_told_of_no_abort() -> None:
    life = begun()
    life.handle(TerminalDone(11, RESULT), 0)
    life.handle(ReplicaLost(11))
    steps = life.handle(CallerGone())
    assert [command for _, command in steps if isinstance(command, AbortReplica)] == [*map(AbortReplica, (10, 12))]
    life.handle(AbortAcked(10), 0)
    assert life.handle(AbortAcked(12), 0) == [(0, Release())]


def test_attempts_are_bounded() -> None:
    life = begun(max_attempts=2)
    lose(life)
    rebind(life)
    steps = life.handle(ReplicaLost(20))
    assert outcomes(steps) == [Failover.EXHAUSTED]
    assert failure(steps).reason is Reason.STAGE_UNAVAILABLE


def test_with_one_attempt_nothing_begins_again() -> None:
    steps = begun(max_attempts=1).handle(ReplicaLost(10))
    assert outcomes(steps) == [Failover.EXHAUSTED]
    assert failure(steps).stage == "entry"


@pytest.mark.parametrize("why", [Failover.NO_REPLICA, Failover.NOT_KEPT])
def test_where_no_other_attempt_is_possible_the_loss_is_the_end(why: Failover) -> None:
    life = begun()
    lose(life, 11)
    steps = life.handle(Unbound(why))
    assert outcomes(steps) == [why]
    error = failure(steps)
    assert (error.reason, error.stage, error.retry_after is None) == (Reason.STAGE_UNAVAILABLE, "write", False)
    assert not life.is_over
    assert life.handle(AbortTimedOut(), 0) == [(0, Release(frozenset({10, 12})))]
    assert life.is_over


def test_output_that_could_not_be_kept_ends_the_ability_to_go_on_and_not_the_request() -> None:
    life = begun()
    life.handle(text(0, 0, "text"), 0)
    mixed = OutputMade(11, 1, AudioOutput(bytes(2), 24000))
    assert life.handle(mixed, 0) == [(0, SendOutput(1, mixed.output))]
    assert outcomes(life.handle(ReplicaLost(10))) == [Failover.NOT_KEPT]


def test_what_comes_of_an_older_attempt_only_settles_it() -> None:
    life = begun()
    lose(life)
    rebind(life)
    late: list[Event] = [
        text(0, 0, "late"),
        TerminalDone(11, RESULT),
        StageFailed(11, StageError("write")),
        StageFailed(11, StageUnavailable("speak", "lost its replica")),
    ]
    assert [step for event in late for step in life.handle(event, 0)] == []
    assert life.handle(AbortAcked(11), 0) == []
    assert life.handle(ReplicaLost(12)) == [(0, Release())]
    assert life.handle(text(7, 0, "of no attempt"), 7) == []


def test_a_caller_without_room_is_waited_for_before_another_attempt_begins() -> None:
    life = begun(credits=1)
    life.handle(text(0, 0, "one"), 0)
    lose(life)
    assert rebind(life) == []
    assert life.handle(OutputRead(audio=1)) == []
    assert life.handle(OutputRead(text=1)) == [(1, Dispatch(20))]
    assert life.handle(text(1, 0, "one two"), 1)[0] == (1, SendOutput(1, TextOutput(" two")))


def test_without_another_replica_nobody_waits_for_the_caller() -> None:
    life = begun(credits=1)
    life.handle(text(0, 0, "one"), 0)
    lose(life)
    assert failure(life.handle(Unbound(Failover.NO_REPLICA))).reason is Reason.STAGE_UNAVAILABLE


@pytest.mark.parametrize("event", [CallerGone(), DeadlinePassed(), Stopping()])
def test_an_attempt_that_has_not_begun_can_end(event: Event) -> None:
    life = begun(credits=1)
    life.handle(text(0, 0, "one"), 0)
    lose(life)
    rebind(life)
    steps = life.handle(event)
    assert outcomes(steps) == [Failover.INTERRUPTED]
    assert failure(steps)
    assert life.handle(event) == life.handle(OutputRead(text=5)) == []
    life.handle(AbortTimedOut())
    assert life.is_over


def test_an_attempt_that_has_not_begun_can_lose_a_replica_too() -> None:
    life = begun(credits=1)
    life.handle(text(0, 0, "one"), 0)
    lose(life)
    rebind(life)
    assert life.handle(ReplicaLost(22))[-1] == (1, Rebind(frozenset({10, 22})))
    assert rebind(life) == []
    assert life.handle(OutputRead(text=1)) == [(2, Dispatch(30))]


def test_credits_reach_a_stage_of_a_new_attempt_once_it_is_known_there() -> None:
    life = begun()
    life.handle(text(0, 0, "one"), 0)
    lose(life)
    assert life.credit == CREDITS - 1
    rebind(life)
    assert life.handle(OutputRead(text=1, audio=2)) == []
    assert (1, GrantOutput(21, text=2, audio=0)) in life.handle(text(1, 0, "one"), 1)
    assert (1, GrantOutput(22, text=0, audio=3)) in life.handle(audio(1, 0, bytes(2)), 1)
