"""Media files made on the spot: good ones in every format, and bombs."""

from __future__ import annotations

import io
import resource
import struct
import wave
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omni_common.errors import OmniError, Reason

FOLDER = Path(__file__).parents[2] / "media"


def image_file(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def gif_of(frames: int) -> bytes:
    images = [Image.new("P", (1000, 1000), n) for n in range(frames)]
    return image_file(images[0], "GIF", save_all=True, append_images=images[1:])


def sine(seconds: float, rate: int, hz: float = 440.0) -> NDArray[np.int16]:
    return (np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate) * 8000).astype(np.int16)


def wav_file(samples: NDArray[np.int16], rate: int, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def audio_file(samples: NDArray[np.int16], rate: int, form: str, codec: str, **options: str) -> bytes:
    """Mono samples, encoded by FFmpeg."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono", options=options)
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        cutter = av.AudioResampler(
            format=stream.codec_context.format,
            layout="mono",
            rate=rate,
            frame_size=stream.codec_context.frame_size or 0,
        )
        for piece in (*cutter.resample(frame), *cutter.resample(None), None):
            file.mux(stream.encode(piece))
    return out.getvalue()


def video_file(
    frames: Sequence[NDArray[np.uint8]],
    rate: int,
    form: str = "mp4",
    codec: str = "libx264",
    *,
    rotation: int = 0,
    **options: str,
) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=form, options=options) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        if rotation:
            stream.set_display_rotation(rotation)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def black(width: int, height: int) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


def greys(count: int, step: int) -> list[NDArray[np.uint8]]:
    """Frames that tell by their grey which one they are."""
    return [np.full((48, 64, 3), 16 + step * n, np.uint8) for n in range(count)]


def box(name: bytes, *contents: bytes) -> bytes:
    """An MP4 box."""
    body = b"".join(contents)
    return struct.pack(">I4s", 8 + len(body), name) + body


def with_declared_samples(mp4: bytes, count: int) -> bytes:
    """The file, with tables that claim `count` samples of one byte; its size does not change."""
    forged = bytearray(mp4)
    struct.pack_into(">II", forged, mp4.index(b"stsz") + 8, 1, count)
    struct.pack_into(">I", forged, mp4.index(b"stts") + 12, count)
    struct.pack_into(">III", forged, mp4.index(b"stsc") + 12, 1, count, 1)
    return bytes(forged)


def with_compressed_header(unpacked: int) -> bytes:
    """An old QuickTime file whose header unpacks to so many zeros."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(unpacked >> 20)) + packer.flush()
    header = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", unpacked), packed))
    return box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"moov", header)


def damaged_copies(file: bytes, count: int) -> Iterator[bytes]:
    """The file with four bytes changed, each time others; always the same ones."""
    random = np.random.default_rng(1)
    for _ in range(count):
        copy = bytearray(file)
        for at in random.integers(0, len(file), 4):
            copy[at] = random.integers(0, 256)
        yield bytes(copy)


def served_or_refused(decode: Callable[[], object]) -> bool:
    """Whether decoding ends in a result or in an error that blames the request; anything else it raises goes on."""
    try:
        decode()
    except OmniError as error:
        return error.reason in {Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE}
    return True


@contextmanager
def memory_within(mib: int) -> Iterator[None]:
    """Fails when the block needs more new address space than that: an allocation beyond it is a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (mib << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
