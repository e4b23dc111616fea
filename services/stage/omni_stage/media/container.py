"""Opening an audio or video file with FFmpeg, told which format it is and which decoders may run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av

from omni_common.request import Modality
from omni_stage.media import mp4
from omni_stage.media.budget import Buffer, Meter, TimedFile
from omni_stage.media.sniff import FileFormat

# FFmpeg has some 500 decoders, most of them for formats of the nineties; these are what people send.
_DECODERS = {
    Modality.AUDIO: (
        "aac,alac,flac,mp3,mp3float,opus,libopus,vorbis,pcm_alaw,pcm_mulaw,pcm_u8,"
        "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be"
    ),
    Modality.VIDEO: "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mpeg4",
}


@contextmanager
def opened(data: Buffer, form: FileFormat, modality: Modality, meter: Meter) -> Iterator[Any]:
    """Yields the first stream of this modality; its `container` reads it.

    Whatever FFmpeg raises inside the block leaves it as InvalidRequest.
    """
    limits = {
        "codec_whitelist": _DECODERS[modality],
        "format_whitelist": form.reader,
        "protocol_whitelist": "none",  # a file names no other file
        "max_pixels": str(meter.budget.max_pixels),  # a larger frame is refused before it is allocated
    }
    if form.reader == "mp4":
        mp4.check_tables(data, meter)
    try:
        with av.open(TimedFile(data, meter), format=form.reader, options=limits) as container:
            yield _stream(container, form, modality, meter)
    except (av.FFmpegError, ValueError) as error:
        raise meter.invalid(f"could not be decoded as {form.name}: it is damaged or incomplete") from error


def _stream(container: Any, form: FileFormat, modality: Modality, meter: Meter) -> Any:
    stream = next((s for s in container.streams if s.type == modality), None)
    if stream is None:
        raise meter.invalid(f"is {form.name} data without {modality}")
    context = stream.codec_context
    if context is None or context.codec.name not in _DECODERS[modality].split(","):
        raise meter.invalid(f"is {form.name} data with a codec that is not read here")
    if modality is Modality.VIDEO:
        meter.check_pixels(context.width, context.height)
    context.options = {"max_pixels": str(meter.budget.max_pixels)}
    context.thread_count = 1  # every thread more holds frames of its own, outside any budget
    return stream


def check_declared(stream: Any, form: FileFormat, meter: Meter) -> None:
    """Refuses a file that tells of more seconds than the budget allows, before any of it is decoded."""
    if form.estimates_length:
        return
    if stream.duration is not None:
        meter.check_seconds(float(stream.duration * stream.time_base))
    elif stream.container.duration is not None:
        meter.check_seconds(stream.container.duration / av.time_base)


def check_complete(stream: Any, form: FileFormat, seconds: float, meter: Meter) -> None:
    """Refuses a file that ends well before its header says; FFmpeg takes such a file for a shorter one."""
    if not form.declares_length or stream.duration is None:
        return
    declared = float(stream.duration * stream.time_base)
    # Encoders pad and trim some frames at either end.
    if seconds < 0.9 * declared - 0.1:
        raise meter.invalid(f"ends after {seconds:.1f} of the {declared:.1f} seconds that its header declares")
