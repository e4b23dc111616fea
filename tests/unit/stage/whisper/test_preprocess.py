"""What becomes of a file before the model sees it: windows with speech in them, or an error that blames the file."""

from __future__ import annotations

import struct
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.stage.media_files import (
    FOLDER,
    audio_file,
    black,
    damaged_copies,
    memory_within,
    served_or_refused,
    sine,
    video_file,
    wav_file,
)
from tests.unit.stage.whisper.recordings import RATE, arriving, conversation, silence, spoken

from omni_common.errors import InvalidRequest, OmniError, Reason, Unsupported
from omni_common.request import Sampling
from omni_stage.media import MediaBudget
from omni_stage.models.whisper.components.preprocess import Preprocessor
from omni_stage.models.whisper.payload_types import End, Silence, Window

DESCRIBE = (FOLDER / "describe.wav").read_bytes()


@pytest.fixture(scope="module")
def preprocessor(weights: Path) -> Preprocessor:
    return Preprocessor(weights, ("en",))


def windows(preprocessor: Preprocessor, samples: NDArray[np.int16]) -> list[Window]:
    pieces = preprocessor.pieces(arriving(wav_file(samples, RATE)))
    return [piece for piece in pieces if isinstance(piece, Window)]


def test_a_short_recording_is_one_window_with_the_caller_s_prompt(preprocessor: Preprocessor) -> None:
    window, end = preprocessor.pieces(arriving(DESCRIBE, "A quiz."))

    assert isinstance(window, Window)
    assert (window.start, window.prompt) == (0.0, "A quiz.")
    assert end == End(window.seconds)
    assert window.seconds == pytest.approx(2.345, abs=0.001)
    assert window.features.shape == (80, int(window.seconds * 100))


@pytest.mark.parametrize(
    ("form", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 16_000),
        ("mp3", "libmp3lame", 16_000),
        ("ipod", "aac", 16_000),
        ("webm", "libopus", 16_000),
        ("ogg", "libopus", 16_000),
        ("flac", "flac", 16_000),
    ],
    ids=str,
)
def test_every_format_is_heard(preprocessor: Preprocessor, form: str, codec: str, rate: int) -> None:
    window, end = preprocessor.pieces(arriving(audio_file(spoken("describe"), rate, form, codec)))

    assert isinstance(window, Window)
    assert isinstance(end, End)
    assert end.seconds == pytest.approx(2.345, abs=0.1)


def test_windows_begin_where_speech_does_after_silence_of_any_length(preprocessor: Preprocessor) -> None:
    made = windows(preprocessor, spoken(45.0, "describe", 50.0, "greeting", 40.0, "question", 3.0))

    starts = [45.0, 45.0 + 2.345 + 50.0, 45.0 + 2.345 + 50.0 + 1.776 + 40.0]
    assert [window.start for window in made] == pytest.approx(starts, abs=0.5)
    assert all(window.start <= start for window, start in zip(made, starts, strict=True))
    assert all(window.seconds < 4 for window in made)


def test_the_windows_of_a_long_recording_hold_all_speech_in_order(preprocessor: Preprocessor) -> None:
    pieces = list(preprocessor.pieces(arriving(wav_file(conversation(150), RATE), "Once.")))
    made = [piece for piece in pieces if isinstance(piece, Window)]

    ends = [window.start + window.seconds for window in made]
    assert all(end <= window.start for end, window in zip(ends, made[1:], strict=False))
    assert all(window.seconds <= 30 for window in made)
    assert sum(window.seconds for window in made) > 0.9 * 150  # the pauses are short, and stay
    assert [window.prompt for window in made] == ["Once.", *[""] * (len(made) - 1)]
    last = pieces[-1]
    assert isinstance(last, End)
    assert last.seconds == len(conversation(150)) / RATE


def peak_of(preprocessor: Preprocessor, seconds: float) -> int:
    """The most memory that Python's objects, arrays among them, take at a time."""
    request = arriving(audio_file(conversation(seconds), RATE, "flac", "flac"))
    tracemalloc.start()
    try:
        for _ in preprocessor.pieces(request):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_five_minutes_take_the_memory_of_one(preprocessor: Preprocessor) -> None:
    assert peak_of(preprocessor, 300) < 1.1 * peak_of(preprocessor, 60)


def test_a_long_silence_is_told_piece_by_piece(preprocessor: Preprocessor) -> None:
    """So no turn of the scheduler takes longer than a window does."""
    pieces = list(preprocessor.pieces(arriving(wav_file(spoken(120.0, "describe"), RATE))))

    quiet = [piece for piece in pieces if isinstance(piece, Silence)]
    assert len(quiet) >= 4
    assert all(piece.end - piece.start <= 30 for piece in quiet)


def noise(seconds: float) -> NDArray[np.int16]:
    return (np.random.default_rng(1).standard_normal(round(seconds * RATE)) * 3000).astype(np.int16)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(silence(5), id="silence"),
        pytest.param(silence(70), id="a long silence"),
        pytest.param(noise(10), id="noise"),
        pytest.param(sine(10, RATE), id="a tone"),
        pytest.param(np.ones(1, np.int16), id="one sample"),
    ],
)
def test_where_nobody_speaks_there_is_nothing_to_transcribe(
    preprocessor: Preprocessor, samples: NDArray[np.int16]
) -> None:
    with pytest.raises(InvalidRequest, match="No speech was found in the audio") as refused:
        list(preprocessor.pieces(arriving(wav_file(samples, RATE))))

    assert (refused.value.param, refused.value.code) == ("file", "no_speech")


def with_rate(rate: int) -> bytes:
    forged = bytearray(DESCRIBE)
    struct.pack_into("<I", forged, 24, rate)
    return bytes(forged)


def not_a_number() -> bytes:
    file = audio_file(spoken("describe"), RATE, "wav", "pcm_f32le")
    return file[:-4] + struct.pack("<f", float("inf"))


def cut_off(form: str, codec: str) -> bytes:
    file = audio_file(spoken("describe", "greeting"), RATE, form, codec)
    return file[: len(file) // 2]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param(b"", "is empty", id="no bytes"),
        pytest.param(wav_file(silence(0), RATE), "has no samples", id="no samples"),
        pytest.param(b"Dear Sir or Madam, this is no sound at all.", "no format that is read", id="a text"),
        pytest.param((FOLDER / "cat.jpg").read_bytes(), "is JPEG data", id="a picture"),
        pytest.param(video_file([black(64, 48)] * 5, 5), "is MP4 data without audio", id="a silent film"),
        pytest.param(cut_off("wav", "pcm_s16le"), "ends after", id="half a WAV"),
        pytest.param(cut_off("mp3", "libmp3lame"), "ends after", id="half an MP3"),
        pytest.param(cut_off("ipod", "aac"), "damaged or incomplete", id="half an M4A"),
        pytest.param(cut_off("flac", "flac"), "damaged or incomplete|ends after", id="half a FLAC"),
        pytest.param(with_rate(1), "claims 1 samples a second", id="one sample a second"),
        pytest.param(with_rate(4_000_000_000), "damaged or incomplete", id="four billion samples a second"),
        pytest.param(not_a_number(), "samples that are not numbers", id="infinitely loud"),
    ],
)
def test_a_bad_file_is_refused_by_name(preprocessor: Preprocessor, file: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        list(preprocessor.pieces(arriving(file)))

    assert refused.value.param == "file"


def test_a_rate_that_is_merely_wrong_is_taken_at_its_word(preprocessor: Preprocessor) -> None:
    """Twice as long and an octave lower: it may or may not be heard as speech."""
    assert served_or_refused(lambda: list(preprocessor.pieces(arriving(with_rate(8000)))))


def test_damage_anywhere_ends_in_windows_or_in_an_error_of_the_request(preprocessor: Preprocessor) -> None:
    file = audio_file(spoken("greeting"), RATE, "ogg", "libopus")

    for damaged in damaged_copies(file, 20):
        assert served_or_refused(partial(list, preprocessor.pieces(arriving(damaged))))


def test_a_small_file_of_hours_is_refused_in_little_memory(weights: Path) -> None:
    preprocessor = Preprocessor(weights, ("en",), MediaBudget(max_seconds=240))
    bomb = audio_file(silence(260), RATE, "ogg", "libopus", b="6000")
    assert len(bomb) < 300_000

    with memory_within(160), pytest.raises(OmniError, match="lasts longer than 240 seconds") as refused:
        list(preprocessor.pieces(arriving(bomb)))

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE
    assert refused.value.param == "file"


def test_a_language_that_the_model_lacks_is_refused(preprocessor: Preprocessor) -> None:
    with pytest.raises(InvalidRequest, match="knows no language 'fr'; it knows en") as refused:
        list(preprocessor.pieces(arriving(DESCRIBE, language="fr")))

    assert refused.value.param == "language"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"sampling": Sampling(seed=1)}, "seed"),
        ({"stage_sampling": {"transcribe": Sampling(top_p=0.5)}}, "top_p"),
        ({"stop": ("x",)}, "stop"),
    ],
)
def test_a_setting_that_means_nothing_to_it_is_refused(
    preprocessor: Preprocessor, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(Unsupported, match="leave") as refused:
        list(preprocessor.pieces(arriving(DESCRIBE, **params)))

    assert refused.value.param == param
