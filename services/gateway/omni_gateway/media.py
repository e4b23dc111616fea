"""Files in requests, recognised by their first bytes.

Decoding, with its budgets, happens in the stage that needs pixels or samples. Nothing that a caller says of a file is
trusted as its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from omni_common.errors import InvalidRequest
from omni_common.request import Media, Modality

_EBML = b"\x1a\x45\xdf\xa3"  # WebM and Matroska
_ISO = b"ftyp"  # the box that begins MP4, M4A and MOV, after its length

# Long enough for every signature below.
_HEAD = 16


def _is_image(head: bytes) -> bool:
    return (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    )  # fmt: skip


def _is_audio(head: bytes) -> bool:
    return (
        (head[:4] == b"RIFF" and head[8:12] == b"WAVE")
        or head.startswith((b"fLaC", b"OggS", b"ID3", _EBML))
        or head[4:8] == _ISO
        # The eleven set bits that begin a frame of MP3 or of AAC in ADTS.
        or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    )


def _is_video(head: bytes) -> bool:
    return head.startswith(_EBML) or head[4:8] == _ISO


_RECOGNISED: Mapping[Modality, tuple[Callable[[bytes], bool], str]] = {
    Modality.IMAGE: (_is_image, "PNG, JPEG, WebP or GIF"),
    Modality.AUDIO: (_is_audio, "WAV, MP3, FLAC, Ogg, AAC, MP4 or WebM"),
    Modality.VIDEO: (_is_video, "MP4, MOV, WebM or Matroska"),
}


def media_of_bytes(modality: Modality, data: bytes | memoryview, param: str) -> Media:
    """The file itself. Raises InvalidRequest when it is empty or of no kind that is read here."""
    if not data:
        raise InvalidRequest(f"This {modality} is empty.", param=param, code="invalid_value")
    recognise, kinds = _RECOGNISED[modality]
    if not recognise(bytes(data[:_HEAD])):
        raise InvalidRequest(
            f"This is no {modality} that the server knows; it reads {kinds}.", param=param, code="unsupported_format"
        )
    return Media(modality, data, param)
