"""What `omni verify` takes for speech."""

from __future__ import annotations

import math
import wave
from importlib.resources import as_file, files

import numpy as np
import pytest

from omni_cli.verify.sound import Sound, level_text, sound_of, wrong_with

RATE = 24_000


def tone(amplitude: float, seconds: float = 1.0) -> bytes:
    wave_form = np.sin(np.arange(int(RATE * seconds)) * 2 * np.pi * 440 / RATE) * amplitude
    return wave_form.astype("<i2").tobytes()


def test_a_full_tone_is_three_decibels_below_full_scale() -> None:
    sound = sound_of(tone(32_767))
    assert sound.seconds == 1
    assert sound.level == pytest.approx(-3.01, abs=0.01)


def test_zeros_and_nothing_have_no_level() -> None:
    assert sound_of(bytes(2 * RATE)) == Sound(1.0, -math.inf)
    assert sound_of(b"") == Sound(0.0, -math.inf)
    assert level_text(-math.inf) == "-∞ dBFS"


def test_half_a_sample_is_no_sound() -> None:
    with pytest.raises(ValueError, match="multiple"):
        sound_of(b"abc")


@pytest.mark.parametrize(
    ("pcm", "sentences"),
    [
        pytest.param(tone(3_000), [], id="speech"),
        pytest.param(b"", ["No audio came."], id="nothing"),
        pytest.param(tone(3_000, 0.1), ["Only 0.10 s of audio came; anything said takes 0.5 s."], id="a click"),
        pytest.param(
            tone(3), ["The audio is silent: its level is -86 dBFS, speech is above -60 dBFS."], id="dithered silence"
        ),
        pytest.param(
            bytes(2 * RATE), ["The audio is silent: its level is -∞ dBFS, speech is above -60 dBFS."], id="zeros"
        ),
    ],
)
def test_what_is_wrong_with_a_sound_is_said(pcm: bytes, sentences: list[str]) -> None:
    assert list(wrong_with(sound_of(pcm), at_least=0.5)) == sentences


def test_the_packaged_utterance_is_speech() -> None:
    with as_file(files("omni_cli.verify") / "utterance.wav") as path, wave.open(str(path)) as file:
        level = sound_of(file.readframes(file.getnframes())).level
        assert file.getnframes() / file.getframerate() == pytest.approx(1.8, abs=0.1)
    assert -30 < level < -10
