"""Audio: what decoding gives, and what it refuses."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np
import pytest
import soxr
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
    with_declared_samples,
)

from omni_common.errors import InvalidRequest, OmniError, Reason
from omni_common.tensor import DType, Tensor
from omni_stage.media import MediaBudget, decode_audio

BUDGET = MediaBudget()
QUESTION = (FOLDER / "question.wav").read_bytes()

# Container, codec, sample rate, and how many samples at 16 kHz the codec may add to or take from two seconds.
FORMATS = [
    ("wav", "pcm_s16le", 24_000, 0),
    ("wav", "pcm_u8", 8_000, 0),
    ("wav", "pcm_s24le", 48_000, 0),
    ("wav", "pcm_f32le", 44_100, 0),
    ("wav", "pcm_mulaw", 8_000, 0),
    ("flac", "flac", 44_100, 0),
    ("mp3", "libmp3lame", 44_100, 0),
    ("ogg", "libopus", 48_000, 0),
    ("webm", "libopus", 48_000, 0),
    ("adts", "aac", 44_100, 1024),
    ("mp4", "aac", 44_100, 512),
]


def samples(tensor: Tensor) -> NDArray[np.float32]:
    assert tensor.dtype is DType.FLOAT32
    return np.frombuffer(tensor.data, np.float32)


def pitch(sound: NDArray[np.float32], rate: int) -> float:
    loudest = int(np.abs(np.fft.rfft(sound)).argmax())
    return loudest * rate / len(sound)


@pytest.mark.parametrize(("form", "codec", "rate", "slack"), FORMATS, ids=lambda value: str(value))
def test_every_format_becomes_samples_at_16_khz(form: str, codec: str, rate: int, slack: int) -> None:
    decoded = samples(decode_audio(audio_file(sine(2, rate), rate, form, codec), BUDGET))

    assert abs(len(decoded) - 32_000) <= slack
    assert abs(pitch(decoded, 16_000) - 440) < 1
    assert 0.2 < np.abs(decoded[1000:-1000]).max() < 0.3  # the tone's 8000 of 32768, and what a codec does to it


def test_speech_at_the_right_rate_comes_out_sample_for_sample() -> None:
    raw = np.frombuffer(QUESTION[QUESTION.index(b"data") + 8 :], "<i2")

    assert np.array_equal(samples(decode_audio(QUESTION, BUDGET)), raw.astype(np.float32) / 32768)


def test_resampling_in_pieces_equals_resampling_at_once() -> None:
    tone = sine(1.5, 44_100)

    decoded = samples(decode_audio(wav_file(tone, 44_100), BUDGET))

    assert np.allclose(decoded, soxr.resample(tone.astype(np.float32) / 32768, 44_100, 16_000), atol=1e-6)


def test_channels_are_averaged() -> None:
    left, right = sine(0.5, 16_000), np.zeros(8000, np.int16)

    decoded = samples(decode_audio(wav_file(np.stack([left, right], axis=1), 16_000, channels=2), BUDGET))

    assert np.allclose(decoded, left / 32768 / 2, atol=1e-6)


def test_the_caller_may_ask_for_another_rate() -> None:
    assert decode_audio(wav_file(sine(1, 16_000), 16_000), BUDGET, 24_000).shape == (24_000,)


def test_sound_is_taken_from_a_view_of_bytes() -> None:
    assert decode_audio(memoryview(QUESTION), BUDGET).shape == decode_audio(QUESTION, BUDGET).shape


def test_a_wav_of_unknown_length_is_read_to_its_end() -> None:
    streamed = bytearray(wav_file(sine(1, 16_000), 16_000))
    struct.pack_into("<I", streamed, 40, 0xFFFFFFFF)

    assert decode_audio(bytes(streamed), BUDGET).shape == (16_000,)


def with_rate(rate: int) -> bytes:
    forged = bytearray(wav_file(sine(1, 16_000), 16_000))
    struct.pack_into("<I", forged, 24, rate)
    return bytes(forged)


def not_a_number() -> bytes:
    file = audio_file(sine(0.2, 16_000), 16_000, "wav", "pcm_f32le")
    return file[:-4] + struct.pack("<f", float("nan"))


SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
FLAC = audio_file(sine(2, 44_100), 44_100, "flac", "flac")
M4A = audio_file(sine(2, 44_100), 44_100, "ipod", "aac")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param(b"", "is empty", id="zero length"),
        pytest.param(wav_file(np.zeros(0, np.int16), 16_000), "has no samples", id="a header and no samples"),
        pytest.param(SDP, "no format that is read here", id="SDP, which would open sockets"),
        pytest.param(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n", "no format that is read", id="HLS"),
        pytest.param(b"ffconcat version 1.0\nfile /etc/hostname\n", "no format that is read", id="concat"),
        pytest.param((FOLDER / "cat.jpg").read_bytes(), "is JPEG data, which holds no audio", id="mislabelled"),
        pytest.param(video_file([black(64, 48)], 5), "is MP4 data without audio", id="a silent film"),
        pytest.param(audio_file(sine(1, 8000), 8000, "wav", "adpcm_ms"), "a codec that is not read", id="codec"),
        pytest.param(QUESTION[:30_000], "ends after", id="a truncated WAV"),
        pytest.param(FLAC[: len(FLAC) // 2], "damaged or incomplete", id="a truncated FLAC"),
        pytest.param(M4A[: len(M4A) // 2], "damaged or incomplete", id="a truncated M4A"),
        pytest.param(with_rate(1), "claims 1 samples a second", id="one sample a second"),
        pytest.param(with_rate(4_000_000_000), "damaged or incomplete", id="four billion samples a second"),
        pytest.param(not_a_number(), "samples that are not numbers", id="not a number"),
    ],
)
def test_what_is_no_whole_sound_is_an_invalid_request(file: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        decode_audio(file, BUDGET, param="messages[0].content[1]")

    assert refused.value.param == "messages[0].content[1]"


@pytest.mark.parametrize(
    ("rate", "form", "codec"), [pytest.param(44_100, "flac", "flac"), pytest.param(16_000, "ogg", "libopus")]
)
def test_twelve_minutes_of_nothing_in_a_small_file_are_refused_in_little_memory(
    rate: int, form: str, codec: str
) -> None:
    bomb = audio_file(np.zeros(rate * 720, np.int16), rate, form, codec)
    assert len(bomb) < 200_000

    with memory_within(128), pytest.raises(OmniError, match="lasts longer than 600 seconds") as refused:
        decode_audio(bomb, BUDGET)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_tables_that_declare_millions_of_samples_are_refused_before_they_are_built() -> None:
    with memory_within(64), pytest.raises(OmniError, match="declares more than") as refused:
        decode_audio(with_declared_samples(M4A, 80_000_000), BUDGET)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        pytest.param(MediaBudget(max_bytes=1000), "bytes; 1,000 are allowed", id="bytes"),
        pytest.param(MediaBudget(max_seconds=1.0), "lasts longer than 1 seconds", id="seconds"),
        pytest.param(MediaBudget(max_decoded_bytes=10_000), "unpacks to more than 10,000 bytes", id="unpacked"),
    ],
)
def test_each_limit_of_the_budget_holds(budget: MediaBudget, said: str) -> None:
    with pytest.raises(OmniError, match=said) as refused:
        decode_audio(QUESTION, budget)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_the_clock_is_looked_at_with_every_frame() -> None:
    ticks = iter(range(1000))

    with pytest.raises(OmniError, match="takes more than 5 seconds to decode"):
        decode_audio(FLAC, MediaBudget(max_wall=5, clock=lambda: float(next(ticks))))


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg", "mp4"])
def test_damage_anywhere_ends_in_sound_or_in_an_error_of_the_request(form: str) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "ogg": "libopus", "mp4": "aac"}[form]
    file = audio_file(sine(0.3, 48_000), 48_000, form, codec)

    assert all(served_or_refused(partial(decode_audio, damaged, BUDGET)) for damaged in damaged_copies(file, 100))
