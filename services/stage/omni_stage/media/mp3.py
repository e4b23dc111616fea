"""Whether an MP3 file is all there, where its first frame says how long it is: FFmpeg takes one that was cut off for a
shorter one. Files without that frame, made for streaming, have no length."""

from __future__ import annotations

import re

from omni_stage.media.budget import Buffer, Meter

# Behind the frame's header (4 bytes) and its side information (up to 32).
_LENGTHS = re.compile(rb"Xing|Info")
_WITHIN = 44
_HAS_FRAMES, _HAS_BYTES = 1, 2


def check_complete(data: Buffer, meter: Meter) -> None:
    """Raises InvalidRequest when a tenth or more of the declared bytes is missing."""
    view = memoryview(data)
    start = _after_tags(view)
    match = _LENGTHS.search(view[start : start + _WITHIN])
    if match is None:
        return
    at = start + match.end()
    flags, at = int.from_bytes(view[at : at + 4], "big"), at + 4
    if flags & _HAS_FRAMES:
        at += 4
    declared, there = int.from_bytes(view[at : at + 4], "big"), view.nbytes - start
    if flags & _HAS_BYTES and there < 0.9 * declared:
        raise meter.invalid(f"ends after {there:,} of the {declared:,} bytes that its header declares")


def _after_tags(view: memoryview) -> int:
    """Where the sound begins: behind the ID3 tag, whose size has seven bits to a byte."""
    if bytes(view[:3]) != b"ID3" or view.nbytes < 10:
        return 0
    size = 0
    for byte in view[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size
