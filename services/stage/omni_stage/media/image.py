"""Encoded image to pixels, by Pillow."""

from __future__ import annotations

import re
import struct
import zlib

from PIL import Image, ImageOps

from omni_common.request import Modality
from omni_common.tensor import DType, Tensor
from omni_stage.media import sniff
from omni_stage.media.budget import Buffer, MediaBudget, Meter, TimedFile

# What Pillow raises for bytes that are not what they say. It has no common base for these.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# A JPEG may say that it has more pictures (a depth or gain map of a phone): it still shows one.
_MAY_MOVE = {"GIF", "PNG", "WEBP"}

# A progressive JPEG is drawn over and over, in some ten scans. One of 53 bytes redraws 33 million pixels for 50 ms, and
# a thousand of them fit between two looks at the clock. Inside a scan these bytes do not occur.
_SCAN = re.compile(rb"\xff\xda")
_MOST_SCANS = 100


def decode_image(data: Buffer, budget: MediaBudget, *, param: str | None = None) -> Tensor:
    """The image as it is meant to be seen: uint8 RGB [height, width, 3], upright, on white where it is transparent.

    Raises InvalidRequest, or OmniError REQUEST_TOO_LARGE when it exceeds the budget; both name `param`.
    """
    meter = budget.meter("image", data, param)
    form = sniff.require(Modality.IMAGE, data, meter)
    if form.name == "JPEG" and sum(1 for _ in _SCAN.finditer(data)) > _MOST_SCANS:
        raise meter.too_large(f"is drawn in more than {_MOST_SCANS} scans")
    try:
        with Image.open(TimedFile(data, meter), formats=[form.reader]) as image:
            return _pixels(image, form.reader, meter)
    except _BOMB as error:
        raise meter.too_large(f"has more than the {budget.max_pixels:,} pixels that are allowed") from error
    except _BROKEN as error:
        raise meter.invalid(f"could not be decoded as {form.name}: it is damaged or incomplete") from error


def _pixels(image: Image.Image, reader: str, meter: Meter) -> Tensor:
    width, height = image.size
    meter.check_pixels(width, height)
    # Before anything is unpacked: four bytes a pixel in its own mode, three as RGB.
    meter.spend_bytes(width * height * 7)
    if reader in _MAY_MOVE and getattr(image, "is_animated", False):
        raise meter.invalid("is animated; send a still image or a video")
    image.load()
    upright = ImageOps.exif_transpose(image)
    pixels = _on_white(upright)
    meter.check_time()
    return Tensor(DType.UINT8, (pixels.height, pixels.width, 3), memoryview(pixels.tobytes()))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit greys at 255.
        image = image.point(lambda grey: grey / 256, "L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    white = Image.new("RGB", over.size, (255, 255, 255))
    white.paste(over, mask=over.getchannel("A"))
    return white
