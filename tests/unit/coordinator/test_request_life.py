"""A request's life, as lists of events and lists of commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.errors import OmniError, Reason
from omni_common.errors import StageFailed as StageError
from omni_common.request import AudioOutput, FinishReason, Modality, StageReport, TerminalResult, TextOutput, Usage
from omni_coordinator.core.events import (
    AbortAcked,
    AbortReplica,
    AbortTimedOut,
    Bound,
    CallerGone,
    Command,
    DeadlinePassed,
    Dispatch,
    Event,
    Fail,
    Finish,
    Finished,
    GrantOutput,
    OutputMade,
    OutputRead,
    Release,
    ReplicaLost,
    SendOutput,
    StageFailed,
    Started,
    Stopping,
    TerminalDone,
)
from omni_coordinator.core.request import Request

ENTRY, MIDDLE, DECODE, VOCODER, STRANGER = 10, 11, 12, 13, 99
BOUND = (
    Bound("entry", ENTRY),
    Bound("middle", MIDDLE),
    Bound("decode", DECODE, Modality.TEXT),
    Bound("vocoder", VOCODER, Modality.AUDIO),
)
REPLICAS = (ENTRY, MIDDLE, DECODE, VOCODER)
ABORTS = [AbortReplica(replica) for replica in REPLICAS]
ACKS: list[Event] = [AbortAcked(replica) for replica in REPLICAS]
TEXT = TextOutput("hi")
AUDIO = AudioOutput(b"\0\0", 24000)
WRITTEN = TerminalResult(
    FinishReason.LENGTH,
    Usage(prompt_tokens=5, completion_text_tokens=3),
    (StageReport("entry", "e-0", 0.0, 0.1, 0.2), StageReport("middle", "m-0", 0.2, 0.3, 0.4)),
)
SPOKEN = TerminalResult(
    None,
    Usage(completion_audio_tokens=7),
    (StageReport("middle", "m-0", 0.2, 0.3, 0.6), StageReport("vocoder", "v-0", 0.3, 0.5, 0.9)),
)
BOTH = Finished(
    FinishReason.LENGTH,
    Usage(prompt_tokens=5, completion_text_tokens=3, completion_audio_tokens=7),
    (
        StageReport("entry", "e-0", 0.0, 0.1, 0.2),
        StageReport("middle", "m-0", 0.2, 0.3, 0.6),
        StageReport("vocoder", "v-0", 0.3, 0.5, 0.9),
    ),
)
BROKEN = StageError("middle")


def run(events: list[Event]) -> list[Command]:
    request = Request("entry", BOUND)
    return [command for event in events for command in request.handle(event)]


def failure(commands: list[Command]) -> OmniError:
    errors = [command.error for command in commands if isinstance(command, Fail)]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize(
    ("events", "commands"),
    [
        pytest.param([Started(2)], [Dispatch(ENTRY)], id="only the entry stage is told to begin"),
        pytest.param(
            [Started(2), OutputMade(DECODE, 0, TEXT), OutputMade(VOCODER, 0, AUDIO), OutputMade(DECODE, 1, TEXT)],
            [Dispatch(ENTRY), SendOutput(0, TEXT), SendOutput(0, AUDIO), SendOutput(1, TEXT)],
            id="each terminal counts its own outputs",
        ),
        pytest.param(
            [Started(2), TerminalDone(VOCODER, SPOKEN), TerminalDone(DECODE, WRITTEN)],
            [Dispatch(ENTRY), Finish(BOTH), Release()],
            id="the last terminal to end ends the request, with everything merged",
        ),
        pytest.param(
            [Started(2), TerminalDone(DECODE, WRITTEN), TerminalDone(DECODE, WRITTEN)],
            [Dispatch(ENTRY)],
            id="a terminal that says twice that it is done does not stand in for the other",
        ),
        pytest.param(
            [
                Started(2),
                TerminalDone(DECODE, WRITTEN),
                TerminalDone(VOCODER, SPOKEN),
                OutputMade(DECODE, 0, TEXT),
                StageFailed(MIDDLE, BROKEN),
                CallerGone(),
                DeadlinePassed(),
                ReplicaLost(ENTRY),
                AbortAcked(ENTRY),
                AbortTimedOut(),
            ],
            [Dispatch(ENTRY), Finish(BOTH), Release()],
            id="nothing that comes after the end changes anything",
        ),
        pytest.param(
            [Started(2), StageFailed(MIDDLE, BROKEN), *ACKS],
            [Dispatch(ENTRY), Fail(BROKEN), *ABORTS, Release()],
            id="a failed stage fails the request at once, and its place is free when all replicas have answered",
        ),
        pytest.param(
            [Started(2), StageFailed(MIDDLE, BROKEN), *ACKS[:3]],
            [Dispatch(ENTRY), Fail(BROKEN), *ABORTS],
            id="one replica that has not answered keeps the place taken",
        ),
        pytest.param(
            [Started(2), StageFailed(MIDDLE, BROKEN), *ACKS[:2], ReplicaLost(DECODE), ACKS[3]],
            [Dispatch(ENTRY), Fail(BROKEN), *ABORTS, Release()],
            id="a replica that is lost while it should answer has answered",
        ),
        pytest.param(
            [Started(2), StageFailed(MIDDLE, BROKEN), *ACKS[:3], AbortTimedOut(), ACKS[3]],
            [Dispatch(ENTRY), Fail(BROKEN), *ABORTS, Release(frozenset({VOCODER}))],
            id="a replica that does not answer in time is named and no longer waited for",
        ),
        pytest.param(
            [
                Started(2),
                StageFailed(MIDDLE, BROKEN),
                CallerGone(),
                OutputMade(DECODE, 0, TEXT),
                TerminalDone(DECODE, WRITTEN),
                TerminalDone(VOCODER, SPOKEN),
                StageFailed(ENTRY, BROKEN),
                OutputRead(text=1),
                *ACKS,
            ],
            [Dispatch(ENTRY), Fail(BROKEN), *ABORTS, Release()],
            id="what the stages made before they heard of the abort is dropped",
        ),
        pytest.param(
            [Started(2), AbortAcked(ENTRY), AbortTimedOut(), OutputMade(DECODE, 0, TEXT)],
            [Dispatch(ENTRY), SendOutput(0, TEXT)],
            id="answers to aborts that nobody sent change nothing",
        ),
        pytest.param(
            [
                Started(2),
                StageFailed(STRANGER, BROKEN),
                OutputMade(STRANGER, 0, TEXT),
                ReplicaLost(STRANGER),
                TerminalDone(STRANGER, WRITTEN),
            ],
            [Dispatch(ENTRY)],
            id="a replica that does not serve the request has no say in it",
        ),
        pytest.param(
            [Started(2), OutputRead(text=3, audio=1), OutputRead(audio=2)],
            [
                Dispatch(ENTRY),
                GrantOutput(DECODE, text=3, audio=0),
                GrantOutput(VOCODER, text=0, audio=1),
                GrantOutput(VOCODER, text=0, audio=2),
            ],
            id="credits go to the terminal that makes that kind of output",
        ),
        pytest.param(
            [Started(2), OutputMade(DECODE, 0, TEXT), OutputMade(DECODE, 0, TEXT), OutputMade(DECODE, 1, TEXT)],
            [Dispatch(ENTRY), SendOutput(0, TEXT), SendOutput(1, TEXT)],
            id="a repeated output is sent on once",
        ),
    ],
)
def test_a_request_turns_events_into_commands(events: list[Event], commands: list[Command]) -> None:
    assert run(events) == commands


@pytest.mark.parametrize(
    ("event", "reason", "stage"),
    [
        pytest.param(CallerGone(), Reason.CANCELLED, None, id="the caller leaves"),
        pytest.param(DeadlinePassed(), Reason.DEADLINE_EXCEEDED, None, id="the deadline passes"),
        pytest.param(Stopping(), Reason.STAGE_UNAVAILABLE, None, id="the coordinator stops"),
        pytest.param(
            OutputMade(MIDDLE, 0, TEXT), Reason.INTERNAL, None, id="a stage that is not terminal sends output"
        ),
        pytest.param(OutputMade(DECODE, 1, TEXT), Reason.INTERNAL, None, id="an output is missing"),
        pytest.param(TerminalDone(ENTRY, WRITTEN), Reason.INTERNAL, None, id="a stage that is not terminal is done"),
    ],
)
def test_the_request_fails_and_every_replica_is_told_when(event: Event, reason: Reason, stage: str | None) -> None:
    commands = run([Started(2), event])
    assert failure(commands).reason is reason
    assert failure(commands).stage == stage
    assert commands[2:] == ABORTS


def test_a_lost_replica_fails_the_request_with_advice_to_retry_and_only_the_others_are_told() -> None:
    commands = run([Started(2), ReplicaLost(MIDDLE), AbortAcked(ENTRY), AbortAcked(DECODE), AbortAcked(VOCODER)])
    assert failure(commands).reason is Reason.STAGE_UNAVAILABLE
    assert failure(commands).stage == "middle"
    assert failure(commands).retry_after is not None
    assert commands[2:] == [AbortReplica(ENTRY), AbortReplica(DECODE), AbortReplica(VOCODER), Release()]


def test_a_request_whose_only_replica_is_lost_is_over_at_once() -> None:
    request = Request("one", (Bound("one", 1, Modality.TEXT),))
    request.handle(Started(1))
    assert [type(command) for command in request.handle(ReplicaLost(1))] == [Fail, Release]


def test_output_beyond_the_credits_fails_the_request_instead_of_growing_a_queue() -> None:
    commands = run([Started(2), *(OutputMade(DECODE, index, TEXT) for index in range(3))])
    assert commands[:3] == [Dispatch(ENTRY), SendOutput(0, TEXT), SendOutput(1, TEXT)]
    assert "credits" in failure(commands).message


def test_credits_that_the_caller_returns_let_output_go_on() -> None:
    events: list[Event] = [Started(1), OutputMade(DECODE, 0, TEXT), OutputRead(text=1), OutputMade(DECODE, 1, TEXT)]
    assert run(events)[-1] == SendOutput(1, TEXT)


def test_output_after_the_terminals_own_end_fails_the_request() -> None:
    commands = run([Started(2), TerminalDone(DECODE, WRITTEN), OutputMade(DECODE, 0, TEXT)])
    assert failure(commands).reason is Reason.INTERNAL


def test_a_result_without_a_finish_reason_counts_as_a_stop() -> None:
    request = Request(
        "one",
        (Bound("one", 1, Modality.AUDIO),),
    )
    finish = request.handle(TerminalDone(1, SPOKEN))[0]
    assert isinstance(finish, Finish)
    assert finish.finished.finish_reason is FinishReason.STOP


def test_starting_twice_is_a_mistake_of_ours() -> None:
    with pytest.raises(RuntimeError, match="starts once"):
        run([Started(2), Started(2)])


replica_numbers = st.sampled_from([*REPLICAS, STRANGER])
any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(OutputMade, replica_numbers, st.integers(0, 2), st.just(TEXT)),
    st.builds(OutputRead, st.integers(0, 2), st.integers(0, 2)),
    st.builds(TerminalDone, replica_numbers, st.just(WRITTEN)),
    st.builds(StageFailed, replica_numbers, st.just(BROKEN)),
    st.builds(ReplicaLost, replica_numbers),
    st.builds(AbortAcked, replica_numbers),
    st.sampled_from([CallerGone(), DeadlinePassed(), Stopping()]),
)


@given(st.lists(any_event, max_size=30))
def test_whatever_happens_a_request_ends_exactly_once_and_is_released_exactly_once(events: list[Event]) -> None:
    commands = run([Started(2), *events, DeadlinePassed(), AbortTimedOut()])
    ends = [place for place, command in enumerate(commands) if isinstance(command, Finish | Fail)]
    releases = [place for place, command in enumerate(commands) if isinstance(command, Release)]
    assert len(ends) == len(releases) == 1
    assert not any(isinstance(command, SendOutput | GrantOutput | Dispatch) for command in commands[ends[0] :])
    assert releases[0] == len(commands) - 1
