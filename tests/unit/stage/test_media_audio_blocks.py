"""Audio in blocks: the same sound as at once, in little memory, under the same limits."""

from __future__ import annotations

import io
import struct
import tracemalloc
from itertools import count
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tests.unit.stage.media_files import FOLDER, audio_file, memory_within, sine, wav_file

from omni_common.errors import InvalidRequest, OmniError, Reason
from omni_stage.media import MediaBudget, audio_blocks, decode_audio

BUDGET = MediaBudget()
FORMATS = [
    ("wav", "pcm_s16le", 24_000),
    ("flac", "flac", 44_100),
    ("mp3", "libmp3lame", 44_100),
    ("ogg", "libopus", 48_000),
    ("ogg", "vorbis", 44_100),
    ("webm", "libopus", 48_000),
    ("mp4", "aac", 44_100),
    ("adts", "aac", 44_100),
]


def joined(file: bytes, budget: MediaBudget = BUDGET) -> NDArray[np.float32]:
    return np.concatenate(list(audio_blocks(file, budget)))


def vorbis(samples: NDArray[np.int16], rate: int) -> bytes:
    """FFmpeg's own encoder of it is an experiment."""
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="OGG", subtype="VORBIS")
    return out.getvalue()


class WriteOnly(io.RawIOBase):
    """A sink that cannot seek back to write a length."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.data += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


def streamed(samples: NDArray[np.int16], rate: int, form: str, codec: str, **options: str) -> bytes:
    """As a server writes while it speaks."""
    sink = WriteOnly()
    with av.open(sink, "w", format=form, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.open()
        cutter = av.AudioResampler(stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or 0)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in (*cutter.resample(frame), *cutter.resample(None), None):
            file.mux(stream.encode(piece))
    return bytes(sink.data)


@pytest.mark.parametrize(("form", "codec", "rate"), FORMATS, ids=str)
def test_blocks_are_a_second_each_and_together_the_whole_sound(form: str, codec: str, rate: int) -> None:
    file = vorbis(sine(5, rate), rate) if codec == "vorbis" else audio_file(sine(5, rate), rate, form, codec)
    blocks = list(audio_blocks(file, BUDGET))

    whole = np.frombuffer(decode_audio(file, BUDGET).data, np.float32)
    assert np.array_equal(np.concatenate(blocks), whole)
    assert abs(len(whole) - 80_000) < 1200
    assert len(blocks) >= 5
    assert all(0 < len(block) <= 20_000 for block in blocks)


def test_a_block_is_decoded_when_it_is_asked_for() -> None:
    """The file is damaged after ten seconds: whoever takes two never learns of it."""
    file = bytearray(audio_file(sine(20, 44_100), 44_100, "flac", "flac"))
    file[len(file) // 2 :] = bytes(len(file) - len(file) // 2)
    blocks = audio_blocks(bytes(file), BUDGET)

    assert len(next(blocks)) + len(next(blocks)) > 25_000
    with pytest.raises(InvalidRequest):
        list(blocks)


def test_a_long_sound_takes_the_memory_of_a_few_blocks() -> None:
    file = audio_file(np.zeros(600 * 8000, np.int16), 8000, "flac", "flac")

    tracemalloc.start()
    try:
        samples = sum(len(block) for block in audio_blocks(file, BUDGET))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert samples == 600 * 16_000  # 38 MB, had they been kept
    assert peak < 1 << 20


def test_one_frame_of_half_an_hour_is_taken_a_second_at_a_time() -> None:
    """PCM in Matroska may be one packet, of as many samples as the file has room for."""
    samples = np.zeros(8000 * 1800, np.uint8)
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("pcm_u8", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="u8", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))

    with memory_within(160):  # the file, its packet and its frame; 115 MB more, were all samples made floats at once
        blocks = audio_blocks(out.getvalue(), MediaBudget(max_seconds=3600))
        assert sum(len(block) for block in blocks) == 16_000 * 1800


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        pytest.param("wav", "pcm_s16le", {}, id="wav"),
        pytest.param("flac", "flac", {}, id="flac"),
        pytest.param("mp3", "libmp3lame", {"write_xing": "0"}, id="mp3"),
        pytest.param("ogg", "libopus", {"page_duration": "20000"}, id="ogg"),
        pytest.param("webm", "libopus", {"live": "1"}, id="webm"),
        pytest.param("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}, id="fragmented mp4"),
    ],
)
def test_files_that_were_streamed_know_no_length_and_are_read_to_their_end(
    form: str, codec: str, options: dict[str, str]
) -> None:
    rate = 48_000
    assert abs(len(joined(streamed(sine(3, rate), rate, form, codec, **options))) - 48_000) < 1200


@pytest.mark.parametrize("flags", ["", "+faststart"], ids=["moov at the end", "moov in front"])
def test_an_m4a_is_read_wherever_its_tables_are(flags: str, tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(path, "w", format="ipod", options={"movflags": flags} if flags else {}) as file:
        stream = file.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(sine(2, 44_100)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        for piece in (frame, None):
            file.mux(stream.encode(piece))
    data = path.read_bytes()

    assert (data.index(b"moov") > data.index(b"mdat")) == (not flags)
    assert abs(len(joined(data)) - 32_000) < 1200


MP3 = audio_file(sine(4, 44_100), 44_100, "mp3", "libmp3lame")
TAGGED = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(128) + MP3[MP3.index(b"\xff\xfb") :]


@pytest.mark.parametrize("file", [MP3, TAGGED], ids=["as it is", "with a large tag"])
def test_an_mp3_that_ends_before_its_declared_length_is_refused(file: bytes) -> None:
    assert len(joined(file)) > 60_000
    with pytest.raises(InvalidRequest, match=r"ends after .* bytes that its header declares") as refused:
        next(audio_blocks(file[: len(file) // 2], BUDGET, param="file"))

    assert refused.value.param == "file"


def test_a_wav_with_another_rate_is_taken_at_its_word() -> None:
    forged = bytearray(wav_file(sine(1, 16_000), 16_000))
    struct.pack_into("<I", forged, 24, 8000)

    assert len(joined(bytes(forged))) == 32_000


def test_samples_out_of_range_are_clipped() -> None:
    file = bytearray(audio_file(sine(0.2, 16_000), 16_000, "wav", "pcm_f32le"))
    file[-8:] = struct.pack("<ff", 1e30, -1e30)

    assert joined(bytes(file))[-2:].tolist() == [1.0, -1.0]


def test_the_time_between_two_blocks_does_not_count() -> None:
    now = 0.0

    def clock() -> float:
        return now

    blocks = audio_blocks(wav_file(sine(10, 16_000), 16_000), MediaBudget(max_wall=5, clock=clock))
    for _ in blocks:
        now += 3600.0


def test_decoding_itself_is_timed_through_all_blocks() -> None:
    ticks = count(0.0, 0.01)

    with pytest.raises(OmniError, match="takes more than 5 seconds to decode") as refused:
        list(audio_blocks(wav_file(sine(60, 16_000), 16_000), MediaBudget(max_wall=5, clock=lambda: next(ticks))))

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(("form", "codec", "rate"), [("ogg", "libopus", 48_000), ("flac", "flac", 8000)], ids=str)
def test_a_small_file_of_hours_is_refused_where_the_limit_is(form: str, codec: str, rate: int) -> None:
    bomb = audio_file(np.zeros(rate * 660, np.int16), rate, form, codec)
    assert len(bomb) < 300_000
    with memory_within(64), pytest.raises(OmniError, match="lasts longer than 600 seconds") as refused:
        list(map(len, audio_blocks(bomb, BUDGET)))

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_who_stops_early_leaves_no_decoder_behind() -> None:
    blocks = audio_blocks((FOLDER / "describe.wav").read_bytes(), BUDGET)
    next(blocks)
    blocks.close()

    assert next(blocks, None) is None


@pytest.mark.parametrize(
    ("form", "codec", "rate"),
    [("flac", "flac", 8000), ("ogg", "libopus", 48_000), ("webm", "libopus", 48_000)],
    ids=str,
)
def test_what_tells_that_it_is_too_long_is_refused_before_it_is_decoded(form: str, codec: str, rate: int) -> None:
    """Else a caller could have hours decoded for a file of some kilobytes."""
    blocks = audio_blocks(audio_file(np.zeros(rate * 660, np.int16), rate, form, codec), BUDGET)

    with pytest.raises(OmniError, match="lasts longer than 600 seconds"):
        next(blocks)
