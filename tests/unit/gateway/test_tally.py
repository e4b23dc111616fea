"""What an answer's metrics are made of: times between tokens, and silences that a listener would have met."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from omni_common.request import AudioOutput, FinishReason, TextOutput, Usage
from omni_common.testing.clock import ManualClock
from omni_gateway.call import Event, Finished
from omni_gateway.tally import Listener, Tally

SECOND = AudioOutput(bytes(48_000), 24_000)
END = Finished(FinishReason.STOP, Usage())


def told(*moments: tuple[float, list[Event]]) -> Tally:
    """What came at which second after the request."""
    clock = ManualClock()
    began = clock()
    tally = Tally(clock, began)
    for at, events in moments:
        clock.advance(began + at - clock())
        tally.see(events)
    return tally


def sample(name: str, pipeline: str) -> float:
    return REGISTRY.get_sample_value(name, {"pipeline": pipeline}) or 0.0


def test_the_time_between_tokens_leaves_out_the_first() -> None:
    tally = told((1.0, [TextOutput("a")]), (1.25, [TextOutput("b")]), (1.75, [TextOutput("c"), SECOND]))
    assert tally.gaps == [0.25, 0.5]
    assert tally.first_output == 1.0


def test_tokens_that_come_together_share_the_time() -> None:
    tally = told((1.0, [TextOutput("a"), TextOutput("b")]), (2.0, [TextOutput("c"), TextOutput("d")]))
    assert tally.gaps == [0.5, 0.5]


def test_speech_and_ends_are_no_tokens() -> None:
    assert told((1.0, [TextOutput("a")]), (2.0, [SECOND]), (3.0, [END])).gaps == []


@pytest.mark.parametrize(
    ("pieces", "waited"),
    [
        pytest.param([], 0.0, id="nothing is heard"),
        pytest.param([(5.0, 1.0)], 0.0, id="the wait for the first piece is another measure"),
        pytest.param([(1.0, 1.0), (1.5, 1.0), (2.9, 1.0)], 0.0, id="always in time"),
        pytest.param([(1.0, 1.0), (2.0, 1.0)], 0.0, id="just in time"),
        pytest.param([(1.0, 1.0), (2.5, 1.0)], 0.5, id="once too late"),
        pytest.param([(1.0, 1.0), (2.5, 1.0), (4.0, 1.0)], 1.0, id="what was late moves the end of the rest"),
        pytest.param([(1.0, 3.0), (2.0, 1.0), (5.5, 1.0)], 0.5, id="what came early is played first"),
    ],
)
def test_a_listener_waits_when_sound_comes_after_the_last_was_played(
    pieces: list[tuple[float, float]], waited: float
) -> None:
    listener = Listener()
    for at, seconds in pieces:
        listener.hear(seconds, at)
    assert listener.waited == pytest.approx(waited)


def test_an_answer_is_recorded_under_its_pipeline() -> None:
    tally = told((1.0, [TextOutput("a"), SECOND]), (2.5, [TextOutput("b"), SECOND]), (2.6, [END]))
    tally.record("told")
    assert sample("omni_inter_token_seconds_count", "told") == 1
    assert sample("omni_inter_token_seconds_sum", "told") == pytest.approx(1.5)
    assert sample("omni_audio_underrun_seconds_count", "told") == 1
    assert sample("omni_audio_underrun_seconds_sum", "told") == pytest.approx(0.5)


def test_an_answer_that_broke_off_says_nothing_of_silences() -> None:
    told((1.0, [SECOND]), (9.0, [SECOND])).record("broken-off")
    assert sample("omni_audio_underrun_seconds_count", "broken-off") == 0


def test_an_answer_in_time_counts_as_no_wait_at_all() -> None:
    told((1.0, [SECOND]), (1.5, [SECOND, END])).record("in-time")
    at_once = REGISTRY.get_sample_value("omni_audio_underrun_seconds_bucket", {"pipeline": "in-time", "le": "0.0"})
    assert at_once == 1
