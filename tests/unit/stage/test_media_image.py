"""Images: what decoding gives, and what it refuses."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.unit.stage.media_files import (
    FOLDER,
    damaged_copies,
    gif_of,
    image_file,
    memory_within,
    served_or_refused,
    sine,
    wav_file,
)

from omni_common.errors import InvalidRequest, OmniError, Reason
from omni_common.tensor import DType, Tensor
from omni_stage.media import MediaBudget, decode_image

BUDGET = MediaBudget()
CAT = (FOLDER / "cat.jpg").read_bytes()


def pixels(tensor: Tensor) -> NDArray[np.uint8]:
    assert tensor.dtype is DType.UINT8
    return np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_image_of_every_format_becomes_rgb_pixels(form: str) -> None:
    file = image_file(Image.new("RGB", (5, 3), (200, 30, 40)), form)

    decoded = pixels(decode_image(file, BUDGET))

    assert decoded.shape == (3, 5, 3)
    assert np.allclose(decoded, (200, 30, 40), atol=4)


def test_a_photograph_decodes_as_pillow_shows_it() -> None:
    with Image.open(io.BytesIO(CAT)) as image:
        assert np.array_equal(pixels(decode_image(CAT, BUDGET)), np.asarray(image.convert("RGB")))


def test_a_view_of_bytes_is_read_in_place_of_bytes() -> None:
    assert decode_image(memoryview(CAT), BUDGET).shape == decode_image(CAT, BUDGET).shape


def test_a_photograph_taken_on_its_side_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    lying = Image.new("RGB", (4, 2), "white")
    lying.putpixel((0, 0), (0, 0, 0))

    decoded = pixels(decode_image(image_file(lying, "PNG", exif=exif), BUDGET))

    assert decoded.shape == (4, 2, 3)
    assert decoded[0, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        pytest.param(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), [255, 255, 255], id="clear is white"),
        pytest.param(Image.new("RGBA", (1, 1), (0, 0, 0, 255)), [0, 0, 0], id="opaque stays"),
        pytest.param(Image.new("LA", (1, 1), (0, 128)), [127, 127, 127], id="half a grey is half white"),
        pytest.param(Image.new("I;16", (1, 1), 0x8000), [128, 128, 128], id="16-bit greys keep their tone"),
        pytest.param(Image.new("1", (1, 1), 1), [255, 255, 255], id="one bit"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb_on_white(image: Image.Image, shown: list[int]) -> None:
    assert pixels(decode_image(image_file(image, "PNG"), BUDGET))[0, 0].tolist() == shown


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param(b"", "is empty", id="zero length"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no format that is read here", id="a text"),
        pytest.param(wav_file(sine(0.1, 16_000), 16_000), "is WAV data, which holds no image", id="mislabelled"),
        pytest.param(CAT[: len(CAT) // 2], "damaged or incomplete", id="truncated"),
        pytest.param(CAT[:40], "damaged or incomplete", id="only a head"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(64), "damaged or incomplete", id="only a signature"),
        pytest.param(gif_of(3), "is animated", id="an animation"),
    ],
)
def test_what_is_no_still_image_is_an_invalid_request(file: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        decode_image(file, BUDGET, param="messages[0].content[1]")

    assert refused.value.param == "messages[0].content[1]"


def test_a_20_kilobyte_image_of_169_million_pixels_is_refused_before_it_is_unpacked() -> None:
    bomb = image_file(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(bomb) < 25_000

    with memory_within(64), pytest.raises(OmniError) as refused:
        decode_image(bomb, BUDGET)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_an_animation_of_300_megapixels_is_refused_without_unpacking_it() -> None:
    bomb = gif_of(300)

    with memory_within(64), pytest.raises(InvalidRequest):
        decode_image(bomb, BUDGET)


def test_an_image_that_is_redrawn_a_thousand_times_is_refused() -> None:
    file = image_file(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    last_scan = file[file.rindex(b"\xff\xda") : -2]

    with pytest.raises(OmniError, match="more than 100 scans") as refused:
        decode_image(file[:-2] + last_scan * 1000 + file[-2:], BUDGET)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_a_progressive_photograph_is_read() -> None:
    with Image.open(io.BytesIO(CAT)) as image:
        file = image_file(image, "JPEG", progressive=True)

    assert decode_image(file, BUDGET).shape == (255, 384, 3)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        pytest.param(MediaBudget(max_bytes=1000), "bytes; 1,000 are allowed", id="bytes"),
        pytest.param(MediaBudget(max_pixels=384 * 255 - 1), "384 by 255 pixels", id="pixels"),
        pytest.param(MediaBudget(max_decoded_bytes=10_000), "unpacks to more than 10,000 bytes", id="unpacked"),
    ],
)
def test_each_limit_of_the_budget_holds(budget: MediaBudget, said: str) -> None:
    with pytest.raises(OmniError, match=said) as refused:
        decode_image(CAT, budget)

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


def test_the_clock_is_looked_at_while_an_image_decodes() -> None:
    ticks = iter(range(1000))

    with pytest.raises(OmniError, match="takes more than 5 seconds to decode") as refused:
        decode_image(CAT, MediaBudget(max_wall=5, clock=lambda: float(next(ticks))))

    assert refused.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_damage_anywhere_ends_in_an_image_or_in_an_error_of_the_request(form: str) -> None:
    with Image.open(io.BytesIO(CAT)) as image:
        file = image_file(image.resize((64, 48)), form)

    assert all(served_or_refused(partial(decode_image, damaged, BUDGET)) for damaged in damaged_copies(file, 100))
