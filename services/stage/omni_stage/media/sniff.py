"""Which format a file has, by its first bytes alone: no name or declared type is ever asked.

A decoder is then told this one format. Left to guess, FFmpeg takes a text for SDP, binds sockets and waits for
packets; its HLS and concat readers open what the text names; and Pillow tries readers that had holes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omni_common.request import Modality
from omni_stage.media.budget import Buffer, Meter

_IMAGE = frozenset({Modality.IMAGE})
_AUDIO = frozenset({Modality.AUDIO})
_FILM = frozenset({Modality.AUDIO, Modality.VIDEO})


@dataclass(frozen=True, slots=True)
class FileFormat:
    """`reader` is Pillow's name of the format, or FFmpeg's of the demuxer; `holds` is what may be read from it.

    `declares_length`: FFmpeg learns the length from the header, so that a file which was cut off can be told from a
    short one. The formats made for streaming have no such length. `estimates_length`: what FFmpeg tells of the length
    is a guess from the first frame's bit rate.
    """

    name: str
    reader: str
    holds: frozenset[Modality]
    matches: Callable[[bytes], bool]
    declares_length: bool = False
    estimates_length: bool = False


def _is_mp3(head: bytes) -> bool:
    if head.startswith(b"ID3"):
        return True
    synced = len(head) >= 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    # Layer III, of a version, bit rate and sample rate that exist.
    return synced and head[1] & 0x06 == 0x02 and head[1] & 0x18 != 0x08 and head[2] >> 4 != 15 and head[2] & 0xC != 0xC


def _is_adts(head: bytes) -> bool:
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


FORMATS = (
    FileFormat("PNG", "PNG", _IMAGE, lambda h: h.startswith(b"\x89PNG\r\n\x1a\n")),
    FileFormat("JPEG", "JPEG", _IMAGE, lambda h: h.startswith(b"\xff\xd8\xff")),
    FileFormat("WebP", "WEBP", _IMAGE, lambda h: h[:4] == b"RIFF" and h[8:12] == b"WEBP"),
    FileFormat("GIF", "GIF", _IMAGE, lambda h: h[:6] in {b"GIF87a", b"GIF89a"}),
    FileFormat("WAV", "wav", _AUDIO, lambda h: h[:4] == b"RIFF" and h[8:12] == b"WAVE"),
    FileFormat("FLAC", "flac", _AUDIO, lambda h: h.startswith(b"fLaC"), declares_length=True),
    FileFormat("Ogg", "ogg", _AUDIO, lambda h: h.startswith(b"OggS")),
    FileFormat("MP4", "mp4", _FILM, lambda h: h[4:8] == b"ftyp", declares_length=True),
    FileFormat("WebM", "matroska", _FILM, lambda h: h.startswith(b"\x1a\x45\xdf\xa3")),
    FileFormat("MP3", "mp3", _AUDIO, _is_mp3, estimates_length=True),
    FileFormat("AAC", "aac", _AUDIO, _is_adts, estimates_length=True),
)


def sniff(data: Buffer) -> FileFormat | None:
    """The format of a file, or None where it is none that this package reads."""
    head = bytes(memoryview(data)[:16])
    return next((form for form in FORMATS if form.matches(head)), None)


def require(modality: Modality, data: Buffer, meter: Meter) -> FileFormat:
    """The format, when a file of it can hold this modality. Raises InvalidRequest."""
    form = sniff(data)
    known = ", ".join(f.name for f in FORMATS if modality in f.holds)
    if form is None:
        raise meter.invalid(f"is in no format that is read here; these are: {known}")
    if modality not in form.holds:
        raise meter.invalid(f"is {form.name} data, which holds no {modality}; what is read here: {known}")
    return form
