"""From a model's PCM to what is encoded: resampling and tempo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_gateway.audio.pcm import Chain, PcmStep, Resampler, Tempo, steps_to_caller

NOISE = (np.random.default_rng(1).standard_normal(12_000) * 6_000).astype("<i2").tobytes()
CUTS = st.lists(st.integers(0, 3_000), max_size=12)
SPEEDS = (0.25, 0.4, 0.5, 0.9, 1.1, 2.0, 2.5, 4.0)


def tone(rate: int, seconds: float, *, pitch: float = 440) -> bytes:
    samples: bytes = (
        (np.sin(np.arange(round(rate * seconds)) * 2 * np.pi * pitch / rate) * 20_000).astype("<i2").tobytes()
    )
    return samples


def cut(pcm: bytes, sizes: list[int]) -> list[bytes]:
    """Pieces of so many samples, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(pcm[: 2 * size])
        pcm = pcm[2 * size :]
    return [*pieces, pcm]


def through(step: PcmStep, pieces: list[bytes]) -> bytes:
    return b"".join(map(step.convert, pieces)) + step.finish()


def pitch_of(pcm: bytes) -> float:
    """The strongest frequency at 24 kHz, by an FFT of the middle half."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.abs(np.fft.rfft(middle)).argmax() * 24_000 / len(middle))


def test_what_needs_no_change_passes_untouched() -> None:
    steps = steps_to_caller(24_000, 1)
    assert steps.convert(NOISE) is NOISE
    assert steps.finish() == b""


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_another_rate_becomes_24_khz_with_the_same_pitch_and_length(rate: int) -> None:
    made = through(Resampler(rate), [tone(rate, 2)])
    assert len(made) / 2 / 24_000 == pytest.approx(2.0, abs=0.001)
    assert pitch_of(made) == pytest.approx(440, abs=2)


@given(CUTS)
@settings(max_examples=60, deadline=None)
def test_resampling_does_not_depend_on_how_the_samples_are_cut(sizes: list[int]) -> None:
    assert through(Resampler(22_050), cut(NOISE, sizes)) == through(Resampler(22_050), [NOISE])


@pytest.mark.parametrize("speed", SPEEDS)
def test_tempo_keeps_the_pitch_and_makes_exactly_the_length(speed: float) -> None:
    made = through(Tempo(speed), [tone(24_000, 2)])
    assert len(made) // 2 == int(48_000 / speed)
    assert pitch_of(made) == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize("speed", SPEEDS)
def test_tempo_keeps_the_end_of_the_speech(speed: float) -> None:
    """A second of silence, then a tone to the last sample."""
    made = np.frombuffer(through(Tempo(speed), [bytes(48_000) + tone(24_000, 0.5)]), "<i2")
    heard = np.flatnonzero(np.abs(made) > 5_000)
    assert heard[0] / 24_000 == pytest.approx(1 / speed, abs=0.15)
    assert (len(made) - heard[-1]) / 24_000 < 0.035


@given(CUTS, st.sampled_from(SPEEDS), st.integers(0, 12_000))
@settings(max_examples=80, deadline=None)
def test_tempo_does_not_depend_on_how_the_samples_are_cut(sizes: list[int], speed: float, samples: int) -> None:
    pcm = NOISE[: 2 * samples]
    made = through(Tempo(speed), cut(pcm, sizes))
    assert made == through(Tempo(speed), [pcm])
    assert len(made) == 2 * int(samples / speed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_tempo_streams(speed: float) -> None:
    """0.3 s of speech are enough for the first bytes, and little is held back."""
    step = Tempo(speed)
    first = [step.convert(piece) for piece in cut(tone(24_000, 2), [1_920] * 20)[:4]]
    rest = [step.convert(piece) for piece in cut(tone(24_000, 2), [1_920] * 20)[4:]]
    assert b"".join(first)
    assert len(b"".join(first + rest)) / 48_000 > (2 - 0.35) / speed


def test_a_chain_flushes_every_step_through_those_behind_it() -> None:
    made = through(Chain(Resampler(22_050), Tempo(2)), [tone(22_050, 2)])
    assert len(made) / 2 / 24_000 == pytest.approx(1.0, abs=0.001)
    assert pitch_of(made) == pytest.approx(440, rel=0.01)
