"""Streaming encoders and the speech of one answer."""

from __future__ import annotations

import io
import wave

import anyio
import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_common.errors import OmniError
from omni_common.request import AudioOutput
from omni_gateway.audio.encoder import encode_whole, new_encoder
from omni_gateway.audio.speech import SpeechFile, SpeechStream

TONE = (np.sin(np.arange(48_000) * 2 * np.pi * 440 / 24_000) * 20_000).astype("<i2").tobytes()
PIECE = 3840  # 80 ms, as a vocoder makes them
CODED = ("mp3", "opus", "aac", "flac")


def decoded(data: bytes | bytearray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The samples of a file, at its own rate."""
    with av.open(io.BytesIO(data)) as file:
        frames = [frame.to_ndarray().astype(np.float64).ravel() for frame in file.decode(audio=0)]
    return np.concatenate(frames) if frames else np.zeros(0)


@pytest.mark.parametrize("form", CODED)
def test_what_is_streamed_decodes_to_the_tone_that_went_in(form: str) -> None:
    encoder = new_encoder(form)
    data = b"".join(encoder.encode(TONE[i : i + PIECE]) for i in range(0, len(TONE), PIECE)) + encoder.finish()
    samples = decoded(data)
    rate = 48_000 if form == "opus" else 24_000
    assert len(samples) / rate == pytest.approx(2.0, abs=0.09)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * rate / len(samples) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("form", CODED)
def test_the_first_bytes_leave_long_before_the_last_go_in(form: str) -> None:
    encoder = new_encoder(form)
    made = [encoder.encode(TONE[i : i + PIECE]) for i in range(0, 5 * PIECE, PIECE)]
    assert sum(map(len, made)) > 0


@pytest.mark.parametrize("form", ["wav", *CODED])
def test_an_answer_without_speech_is_still_a_file(form: str) -> None:
    assert len(decoded(encode_whole(form, b""))) < 24_000 / 5


def test_a_whole_wav_is_one_that_a_strict_reader_takes() -> None:
    with wave.open(io.BytesIO(encode_whole("wav", TONE))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.readframes(file.getnframes()) == TONE


def test_flac_is_lossless() -> None:
    assert np.array_equal(decoded(encode_whole("flac", TONE)), np.frombuffer(TONE, "<i2"))


@pytest.mark.parametrize("form", ["wav", *CODED])
@given(st.lists(st.integers(1, 3_000), max_size=12))
@settings(max_examples=15, deadline=None)
def test_what_a_file_decodes_to_does_not_depend_on_how_the_samples_are_cut(form: str, sizes: list[int]) -> None:
    encoder, rest, data = new_encoder(form), TONE, b""
    for size in sizes:
        data += encoder.encode(rest[: 2 * size])
        rest = rest[2 * size :]
    data += encoder.encode(rest) + encoder.finish()
    assert np.array_equal(decoded(data), decoded(encode_whole(form, TONE)))


@pytest.mark.anyio
@given(st.lists(st.integers(0, 40), max_size=12))
@settings(max_examples=40, deadline=None)
async def test_pieces_can_be_joined_as_base64_and_nothing_is_lost(sizes: list[int]) -> None:
    pieces = [AudioOutput(TONE[: 2 * size], 24_000) for size in sizes]
    stream = SpeechStream("pcm16", anyio.CapacityLimiter(1))
    made = [await stream.encode([piece]) for piece in pieces] + [await stream.finish()]
    assert all(len(part) % 6 == 0 for part in made[:-1])
    assert b"".join(made) == b"".join(piece.pcm for piece in pieces)


@pytest.mark.anyio
async def test_a_file_has_the_speech_of_all_pieces() -> None:
    file = SpeechFile("wav", anyio.CapacityLimiter(1), hold=lambda count: None)
    for start in range(0, len(TONE), PIECE):
        await file.add([AudioOutput(TONE[start : start + PIECE], 24_000)])
    assert await file.finish() == encode_whole("wav", TONE)


@pytest.mark.anyio
async def test_a_whole_flac_tells_its_length() -> None:
    file = SpeechFile("flac", anyio.CapacityLimiter(1), hold=lambda count: None)
    for start in range(0, len(TONE), PIECE):
        await file.add([AudioOutput(TONE[start : start + PIECE], 24_000)])
    data = await file.finish()
    with av.open(io.BytesIO(data)) as opened:
        assert opened.duration == 2_000_000  # microseconds
    assert np.array_equal(decoded(data), np.frombuffer(TONE, "<i2"))


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["pcm16", "wav", *CODED])
async def test_a_stream_and_a_file_are_the_same_speech_at_any_rate_and_speed(form: str) -> None:
    stream = SpeechStream(form, anyio.CapacityLimiter(1), speed=1.5)
    file = SpeechFile(form, anyio.CapacityLimiter(1), hold=lambda count: None, speed=1.5)
    pieces = [AudioOutput(TONE[start : start + 5_002], 22_050) for start in range(0, len(TONE), 5_002)]
    streamed = b"".join([await stream.encode([piece]) for piece in pieces]) + await stream.finish()
    await file.add(pieces)
    whole = await file.finish()
    if form == "pcm16":
        assert streamed == whole
        assert len(whole) / 48_000 == pytest.approx(48_000 / 22_050 / 1.5, rel=0.001)
    else:
        assert np.array_equal(decoded(streamed), decoded(whole))


@pytest.mark.anyio
async def test_nothing_is_written_before_there_is_sound() -> None:
    stream = SpeechStream("wav", anyio.CapacityLimiter(1), speed=4)
    assert await stream.encode([AudioOutput(bytes(96), 24_000)]) == b""
    assert (await stream.finish())[:4] == b"RIFF"


@pytest.mark.anyio
async def test_a_mesh_that_changes_its_rate_fails_the_answer() -> None:
    stream = SpeechStream("wav", anyio.CapacityLimiter(1))
    await stream.encode([AudioOutput(TONE, 24_000)])
    with pytest.raises(OmniError):
        await stream.encode([AudioOutput(TONE, 22_050)])
