"""Requests through whatever may happen to their replicas and their callers, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from omni_common.errors import StageUnavailable
from omni_common.request import AudioOutput, FinishReason, Modality, Output, TerminalResult, TextOutput, Usage
from omni_coordinator.core.events import (
    AbortAcked,
    AbortReplica,
    AbortTimedOut,
    Bound,
    CallerGone,
    Dispatch,
    Fail,
    Finish,
    GrantOutput,
    OutputMade,
    OutputRead,
    Release,
    ReplicaLost,
    SendOutput,
    StageFailed,
    Started,
    TerminalDone,
)
from omni_coordinator.core.failover import FailedOver, Failover, Rebind, Rebound, Step, Unbound
from omni_coordinator.core.life import Life

TEXT = "To be, or not to be, that is the question. "
SPEECH = bytes(range(200)) * 3
RESULT = TerminalResult(FinishReason.STOP, Usage())
ENTRY, WRITE, SPEAK = range(3)
CREDITS = 2


@dataclass
class Stage:
    """A terminal stage of one attempt, which sends as its credits allow."""

    replica: int
    credit: int
    made: int = 0
    sent: int = 0
    done: bool = False


@dataclass
class World:
    """A request with its replicas and its caller. What another attempt makes is cut into other pieces."""

    life: Life
    attempts: list[dict[int, Stage]] = field(default_factory=lambda: [{}])
    given: dict[type[Output], int] = field(default_factory=lambda: {TextOutput: 0, AudioOutput: 0})
    read: dict[type[Output], int] = field(default_factory=lambda: {TextOutput: 0, AudioOutput: 0})
    text: str = ""
    speech: bytes = b""
    ends: list[Finish | Fail] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    outcomes: list[Failover] = field(default_factory=list)
    losses: int = 0
    full: bool = False
    goes_on: bool = True

    def carry_out(self, steps: list[Step]) -> None:
        for attempt, command in steps:
            match command:
                case Dispatch(replica):
                    for at in (WRITE, SPEAK):
                        self.attempts[attempt][at] = Stage(replica + at, self.life.credit)
                case SendOutput(index, output):
                    self.receive(index, output)
                case GrantOutput(replica, text, audio):
                    self.attempts[attempt][replica % 10].credit += text + audio
                case Finish() | Fail():
                    self.ends.append(command)
                case Release():
                    self.released.append(attempt)
                case FailedOver(_, outcome):
                    self.outcomes.append(outcome)
                case Rebind() if self.full:
                    self.carry_out(self.life.handle(Unbound(Failover.NO_REPLICA)))
                case Rebind():
                    self.goes_on = True
                    self.attempts.append({})
                    self.carry_out(self.life.handle(Rebound(bound(attempt + 1))))
                case AbortReplica():
                    self.goes_on = False

    def receive(self, index: int, output: Output) -> None:
        kind = type(output)
        assert not self.ends, "nothing comes after the end"
        assert index == self.given[kind], "numbers have no gaps"
        self.given[kind] += 1
        assert self.given[kind] - self.read[kind] <= CREDITS, "the caller has room for it"
        match output:
            case TextOutput(text):
                self.text += text
            case AudioOutput(pcm, _):
                self.speech += pcm

    def make(self, at: int, size: int) -> None:
        """The latest attempt's stage makes its next piece, or says that it is done."""
        if at not in self.attempts[-1]:
            return  # the attempt has not begun
        stage = self.attempts[-1][at]
        whole = len(TEXT) if at == WRITE else len(SPEECH) // 2
        number = len(self.attempts) - 1
        if stage.made == whole and not stage.done:
            stage.done = True
            self.carry_out(self.life.handle(TerminalDone(stage.replica, RESULT), number))
        elif stage.made < whole and stage.credit:
            first, stage.made = stage.made, min(whole, stage.made + size)
            stage.credit -= 1
            stage.sent += 1
            output = (
                TextOutput(TEXT[first : stage.made])
                if at == WRITE
                else AudioOutput(SPEECH[2 * first : 2 * stage.made], 8000)
            )
            self.carry_out(self.life.handle(OutputMade(stage.replica, stage.sent - 1, output), number))

    def read_on(self) -> None:
        text, audio = (self.given[kind] - self.read[kind] for kind in (TextOutput, AudioOutput))
        self.read.update(self.given)
        self.carry_out(self.life.handle(OutputRead(text, audio)))

    def lose(self, at: int, *, noticed: bool) -> None:
        if not self.goes_on:
            return
        stage = self.attempts[-1].get(at)
        is_done = stage is not None and stage.done
        # Of one that has sent all it had, the coordinator's own notice costs nothing.
        self.losses += not (noticed and is_done)
        replica = 10 * len(self.attempts) + at
        if noticed:
            self.carry_out(self.life.handle(ReplicaLost(replica)))
        else:
            error = StageUnavailable(("entry", "write", "speak")[at], "lost its replica")
            self.carry_out(self.life.handle(StageFailed(replica - at, error), len(self.attempts) - 1))

    def finish(self) -> None:
        """Nothing bad happens any more."""
        while not self.ends:
            self.read_on()
            for at in (WRITE, SPEAK):
                self.make(at, 7)
        self.carry_out(self.life.handle(AbortTimedOut()))


def bound(attempt: int) -> tuple[Bound, ...]:
    first = 10 * (attempt + 1)
    return (
        Bound("entry", first + ENTRY),
        Bound("write", first + WRITE, Modality.TEXT),
        Bound("speak", first + SPEAK, Modality.AUDIO),
    )


def world(max_attempts: int) -> World:
    made = World(Life("entry", bound(0), output_credits=CREDITS, max_attempts=max_attempts))
    made.carry_out(made.life.handle(Started(CREDITS)))
    return made


moves = st.one_of(
    st.tuples(st.just("make"), st.sampled_from([WRITE, SPEAK]), st.integers(1, 60)),
    st.tuples(st.just("read"), st.just(0), st.just(0)),
    st.tuples(st.just("lose"), st.sampled_from([ENTRY, WRITE, SPEAK]), st.integers(0, 1)),
    st.tuples(st.just("late"), st.sampled_from([WRITE, SPEAK]), st.integers(0, 2)),
    st.tuples(st.just("ack"), st.sampled_from([ENTRY, WRITE, SPEAK]), st.integers(0, 2)),
    st.tuples(st.sampled_from(["leave", "full"]), st.just(0), st.just(0)),
)


@settings(max_examples=400)
@given(st.lists(moves, max_size=60), st.integers(1, 4))
@example([("make", 1, 43), ("make", 1, 1), ("lose", 1, 1)], 2)
def test_a_request_ends_once_within_the_callers_room_and_its_answer_is_the_undisturbed_one(
    todo: list[tuple[str, int, int]], max_attempts: int
) -> None:
    made = world(max_attempts)
    left = full = False
    for move, at, number in todo:
        match move:
            case "make":
                made.make(at, number)
            case "read":
                made.read_on()
            case "lose":
                made.lose(at, noticed=bool(number))
            case "late" if number < len(made.attempts) - 1:
                late = OutputMade(10 * (number + 1) + at, 0, TextOutput("late"))
                made.carry_out(made.life.handle(late, number))
            case "ack" if number < len(made.attempts):
                made.carry_out(made.life.handle(AbortAcked(10 * (number + 1) + at), number))
            case "leave" if not made.ends:
                left = True
                made.carry_out(made.life.handle(CallerGone()))
            case "full":
                made.full = full = True
    made.finish()
    [end] = made.ends
    assert sorted(made.released) == list(range(len(made.attempts)))
    assert made.life.is_over
    assert len(made.outcomes) <= made.losses
    assert TEXT.startswith(made.text)
    assert SPEECH.startswith(made.speech)
    if isinstance(end, Finish):
        assert (made.text, made.speech) == (TEXT, SPEECH)
    if made.losses < max_attempts and not left and not full:
        assert isinstance(end, Finish)
        assert len(made.outcomes) == made.losses
