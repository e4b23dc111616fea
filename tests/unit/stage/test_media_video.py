"""Video: which frames decoding keeps, and what it refuses."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.stage.media_files import (
    FOLDER,
    audio_file,
    black,
    box,
    damaged_copies,
    greys,
    memory_within,
    served_or_refused,
    sine,
    video_file,
    with_compressed_header,
    with_declared_samples,
)

from omni_common.errors import InvalidRequest, OmniError, Reason
from omni_common.tensor import DType
from omni_stage.media import MediaBudget, Video, decode_video

BUDGET = MediaBudget()
FILM = video_file(greys(20, 10), 10)  # two seconds; frame n has the grey 16 + 10 n


def pixels(video: Video) -> NDArray[np.uint8]:
    assert video.frames.dtype is DType.UINT8
    return np.frombuffer(video.frames.data, np.uint8).reshape(video.frames.shape)


def shown(video: Video) -> list[int]:
    """Which frames of FILM these are."""
    return [round((float(frame.mean()) - 16) / 10) for frame in pixels(video)]


@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("matroska", "libx264")])
def test_every_format_becomes_rgb_frames_at_the_rate_asked_for(form: str, codec: str) -> None:
    video = decode_video(video_file(greys(20, 10), 10, form, codec), BUDGET, 2.0)

    assert video.frames.shape == (4, 48, 64, 3)
    assert shown(video) == [0, 5, 10, 15]
    assert video.fps == 2.0


def test_a_rate_that_does_not_divide_the_film_s_takes_the_first_frame_after_each_moment() -> None:
    assert shown(decode_video(FILM, BUDGET, 3.0)) == [0, 4, 7, 10, 14, 17]


def test_a_film_with_fewer_frames_than_asked_for_is_kept_whole_at_its_own_rate() -> None:
    video = decode_video(FILM, BUDGET, 30.0)

    assert shown(video) == list(range(20))
    assert video.fps == pytest.approx(10)


def test_a_film_of_one_frame_has_the_rate_asked_for() -> None:
    video = decode_video(video_file(greys(1, 0), 10), BUDGET, 2.0)

    assert (video.frames.shape[0], video.fps) == (1, 2.0)


def test_a_film_in_fragments_is_read_to_its_end() -> None:
    fragments = video_file(greys(20, 10), 10, movflags="frag_keyframe+empty_moov")

    assert shown(decode_video(fragments, BUDGET, 2.0)) == [0, 5, 10, 15]


def test_a_film_taken_with_a_turned_phone_is_upright() -> None:
    lying = black(64, 48)
    lying[:, :32] = 255

    video = pixels(decode_video(video_file([lying] * 3, 10, rotation=90), BUDGET, 1.0))

    assert video.shape == (1, 64, 48, 3)
    assert video[0, :20].max() < 40  # a quarter counter-clockwise: what was right is on top
    assert video[0, -20:].min() > 215


def test_a_film_is_taken_from_a_view_of_bytes() -> None:
    assert shown(decode_video(memoryview(FILM), BUDGET, 1.0)) == [0, 10]


SOUND = audio_file(sine(0.5, 44_100), 44_100, "mp4", "aac")
TABLES_FIRST = video_file(greys(20, 10), 10, moov_size="4096")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param(b"", "is empty", id="zero length"),
        pytest.param(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "no format that is read here", id="HLS"),
        pytest.param((FOLDER / "greeting.wav").read_bytes(), "is WAV data, which holds no video", id="mislabelled"),
        pytest.param(SOUND, "is MP4 data without video", id="only sound"),
        pytest.param(FILM[: len(FILM) // 2], "damaged or incomplete", id="cut before its tables"),
        pytest.param(TABLES_FIRST[: len(TABLES_FIRST) - 200], "ends after|damaged", id="cut in its frames"),
        pytest.param(box(b"ftyp", b"isom", bytes(4)), "damaged or incomplete", id="only a head"),
        pytest.param(with_compressed_header(64 << 20), "has a compressed header", id="a header that unpacks"),
    ],
)
def test_what_is_no_whole_film_is_an_invalid_request(file: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        decode_video(file, BUDGET, 2.0, param="messages[0].content[1]")

    assert refused.value.param == "messages[0].content[1]"


def test_a_small_file_of_many_large_frames_is_refused_in_bounded_memory() -> None:
    bomb = video_file([black(3840, 2160)] * 12, 10)
    assert len(bomb) < 60_000
    budget = MediaBudget(max_decoded_bytes=80_000_000)

    with memory_within(400), pytest.raises(OmniError, match="unpacks to more than 80,000,000 bytes") as refused:
        decode_video(bomb, budget, 10.0)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_a_frame_over_the_pixel_limit_is_refused_before_it_is_allocated() -> None:
    bomb = video_file([black(8192, 5120)], 10)

    with memory_within(64), pytest.raises(OmniError, match="has 8192 by 5120 pixels") as refused:
        decode_video(bomb, BUDGET, 1.0)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def with_samples_in_a_fragment(count: int) -> bytes:
    forged = bytearray(video_file(greys(5, 10), 10, movflags="frag_keyframe+empty_moov"))
    struct.pack_into(">II", forged, forged.index(b"trun") + 4, 0, count)
    return bytes(forged)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(with_declared_samples(FILM, 80_000_000), id="in the tables"),
        pytest.param(with_samples_in_a_fragment(80_000_000), id="in a fragment"),
        pytest.param(FILM + box(b"free", box(b"stsz", bytes(4), bytes(4), b"\xff" * 4)), id="in a box that hides them"),
    ],
)
def test_samples_declared_by_the_million_are_refused_before_their_tables_are_built(bomb: bytes) -> None:
    with memory_within(64), pytest.raises(OmniError, match="declares more than") as refused:
        decode_video(bomb, BUDGET, 2.0)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_the_names_of_boxes_inside_the_media_data_mean_nothing() -> None:
    innocent = FILM + box(b"mdat", b"stsz" + b"\xff" * 12 + b"cmov")

    assert shown(decode_video(innocent, BUDGET, 1.0)) == [0, 10]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        pytest.param(MediaBudget(max_bytes=1000), "bytes; 1,000 are allowed", id="bytes"),
        pytest.param(MediaBudget(max_seconds=1.0), "lasts longer than 1 seconds", id="seconds"),
        pytest.param(MediaBudget(max_frames=3), "has more than 3 frames", id="frames"),
        pytest.param(MediaBudget(max_decoded_bytes=10_000), "unpacks to more than 10,000 bytes", id="unpacked"),
    ],
)
def test_each_limit_of_the_budget_holds(budget: MediaBudget, said: str) -> None:
    with pytest.raises(OmniError, match=said) as refused:
        decode_video(FILM, budget, 2.0)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_the_clock_is_looked_at_with_every_frame() -> None:
    ticks = iter(range(1000))

    with pytest.raises(OmniError, match="takes more than 12 seconds to decode"):
        decode_video(FILM, MediaBudget(max_wall=12, clock=lambda: float(next(ticks))), 2.0)


@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_damage_anywhere_ends_in_frames_or_in_an_error_of_the_request(form: str, codec: str) -> None:
    file = video_file(greys(6, 10), 10, form, codec)

    assert all(served_or_refused(partial(decode_video, damaged, BUDGET, 2.0)) for damaged in damaged_copies(file, 100))
