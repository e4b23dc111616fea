"""What the caller has, and whether another attempt makes the same: however either is cut into pieces."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.request import AudioOutput, Output, Segment, TextOutput
from omni_coordinator.core import speech_track, tracks
from omni_coordinator.core.tracks import Differs
from omni_coordinator.core.transcript import Transcript

RATE = 24000


def transcript(*outputs: Output) -> Transcript:
    kept = Transcript()
    for output in outputs:
        kept.note(output)
    return kept


def again(kept: Transcript, *outputs: Output) -> list[Output]:
    """What of another attempt's output the caller does not have. Raises Differs, also where it lacks something."""
    replay = kept.replay()
    assert replay is not None
    fresh: list[Output] = []
    for output in outputs:
        rest = output if replay.is_through else replay.take(output)
        if rest is not None:
            fresh.append(rest)
    if not replay.is_through:
        raise Differs
    return fresh


def texts(words: str, cuts: Sequence[int]) -> list[Output]:
    at = sorted({0, len(words), *(cut % (len(words) + 1) for cut in cuts)})
    return [TextOutput(words[a:b]) for a, b in pairwise(at)]


def tone(samples: int, *, hertz: float = 220.0, noise: int = 0, seed: int = 0) -> bytes:
    draw = random.Random(seed)  # noqa: S311
    wave = (8000 * math.sin(2 * math.pi * hertz * n / RATE) + draw.randint(-noise, noise) for n in range(samples))
    return array("h", [round(value) for value in wave]).tobytes()


def speech(pcm: bytes, piece: int) -> list[Output]:
    return [AudioOutput(pcm[at : at + 2 * piece], RATE) for at in range(0, len(pcm), 2 * piece)]


def sound(outputs: Sequence[Output]) -> bytes:
    return b"".join(output.pcm for output in outputs if isinstance(output, AudioOutput))


cuts = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.text(min_size=1, max_size=300), st.integers(1, 12), cuts, cuts, st.text(max_size=40))
def test_text_goes_on_where_the_caller_is_however_it_is_cut(
    words: str, times: int, was: list[int], now: list[int], more: str
) -> None:
    had = words * times
    fresh = again(transcript(*texts(had, was)), *texts(had + more, now))
    assert "".join(piece.text for piece in fresh if isinstance(piece, TextOutput)) == more


@pytest.mark.parametrize("at", [0, 1, tracks.BLOCK - 1, tracks.BLOCK, 2 * tracks.BLOCK + 5])
@pytest.mark.parametrize("piece", [1, 7, 5000])
def test_text_that_differs_in_one_letter_is_found(at: int, piece: int) -> None:
    had = "x" * (2 * tracks.BLOCK + 6)
    other = had[:at] + "y" + had[at + 1 :] + "and more"
    with pytest.raises(Differs):
        again(transcript(*texts(had, [])), *texts(other, range(0, len(other), piece)))


def test_text_that_ends_too_soon_is_not_the_same() -> None:
    with pytest.raises(Differs):
        again(transcript(TextOutput("all of it")), TextOutput("all of"))


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("samples", [1, 60, 61, 1951, 1952, 1953, 30_000])
@pytest.mark.parametrize(("was", "now"), [(1920, 1000), (333, 30_000), (30_000, 7)])
def test_speech_goes_on_where_the_caller_is_up_to_rounding(samples: int, noise: int, was: int, now: int) -> None:
    fresh = again(transcript(*speech(tone(samples), was)), *speech(tone(samples + 500, noise=noise, seed=1), now))
    assert sound(fresh) == tone(samples + 500, noise=noise, seed=1)[2 * samples :]


def test_other_speech_is_found_wherever_it_begins() -> None:
    had, other = tone(30_000), tone(30_000, hertz=311.0)
    for at in (0, 2 * 15_000, 2 * 29_000):
        with pytest.raises(Differs):
            again(transcript(*speech(had, 1920)), *speech(had[:at] + other[at:], 1000))


def test_silence_is_not_taken_for_speech_nor_speech_for_silence() -> None:
    for one, other in ((tone(5000), bytes(10_000)), (bytes(10_000), tone(5000))):
        with pytest.raises(Differs):
            again(transcript(*speech(one, 480)), *speech(other, 480))


def test_speech_of_another_rate_or_half_a_sample_is_not_the_same() -> None:
    had = transcript(AudioOutput(bytes(8), RATE))
    for output in (AudioOutput(bytes(8), 16000), AudioOutput(bytes(7), RATE), TextOutput("hm")):
        with pytest.raises(Differs):
            again(had, output)


SEGMENT = Segment(0.0, 1.5, " hello", "en", (1, 2), temperature=0.0, avg_logprob=-0.25)


def test_segments_are_the_same_whatever_their_measures_are_rounded_to() -> None:
    more = replace(SEGMENT, start=1.5, end=2.0)
    assert again(transcript(SEGMENT), replace(SEGMENT, avg_logprob=-0.250001), more) == [more]
    others = (
        replace(SEGMENT, text=" hallo"),
        replace(SEGMENT, end=1.6),
        replace(SEGMENT, tokens=(1, 3)),
        replace(SEGMENT, language="de"),
    )
    for other in others:
        with pytest.raises(Differs):
            again(transcript(SEGMENT), other)


def test_what_is_kept_is_bounded_and_what_is_not_whole_cannot_be_used() -> None:
    long_text = transcript(*[TextOutput("x" * tracks.BLOCK)] * (tracks.MAX_BLOCKS + 2))
    long_speech = transcript(*[AudioOutput(bytes(2 << 20), RATE)] * (speech_track.MAX_SAMPLES // 10_000))
    many = transcript(*[SEGMENT] * (tracks.MAX_ITEMS + 1))
    mixed = transcript(SEGMENT, TextOutput("hm"))
    for kept in (long_text, long_speech, many, mixed, Transcript(keep=False)):
        assert not kept.is_whole
        assert not kept.is_empty
        assert kept.replay() is None


def test_of_nothing_there_is_nothing_to_make_again() -> None:
    assert Transcript().is_empty
    assert Transcript().replay() is None
