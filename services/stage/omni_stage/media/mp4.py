"""What an MP4 file's tables claim, read before FFmpeg believes them.

FFmpeg allocates an entry for every sample that the tables declare, and a table of 20 bytes may declare four billion:
a file of 3 KB took 4.7 GB. No option of FFmpeg bounds it, so the claims are added up here. The boxes are found by
their names wherever they hide, but for the media data itself, which is not read as boxes.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omni_stage.media.budget import Buffer, Meter

# Hours of film; 190 MB of entries. (600 seconds of 60 frames a second with sound are 62,000.)
_MOST_SAMPLES = 2_000_000
# A run of plain PCM gets one entry for so many samples.
_PCM_RUN = 1024

_BOX = re.compile(rb"stsz|stz2|stts|ctts|trun|stsc|stco|co64|elst|cmov")


def check_tables(data: Buffer, meter: Meter) -> None:
    """Raises REQUEST_TOO_LARGE when the tables declare more samples than any file of ours has."""
    view = memoryview(data)
    claims: Counter[bytes] = Counter()
    longest_chunk = 0
    for start, end in _outside_media(view):
        for match in _BOX.finditer(view, start, end):
            name, body = match.group(), view[match.end() : end]
            if name == b"cmov":
                raise meter.invalid("has a compressed header, which is not read here")
            if name == b"stsc":
                longest_chunk = max(longest_chunk, int(_column(body, 1, of=3).max(initial=0)))
            else:
                claims[name] += _claim(name, body)
    chunks = claims[b"stco"] + claims[b"co64"]
    samples = max(claims[b"stsz"] + claims[b"stz2"], claims[b"stts"], claims[b"ctts"], claims[b"trun"])
    entries = max(samples, chunks * (longest_chunk // _PCM_RUN))
    # Each edit may repeat every sample.
    if entries * max(1, claims[b"elst"]) > _MOST_SAMPLES:
        raise meter.too_large(f"declares more than {_MOST_SAMPLES:,} samples")


def _outside_media(view: memoryview) -> Iterator[tuple[int, int]]:
    """The spans of the file that are not top-level `mdat` boxes."""
    at = 0
    while at + 16 <= view.nbytes:
        size, name = struct.unpack_from(">I4s", view, at)
        if size == 1:
            size = struct.unpack_from(">Q", view, at + 8)[0]
        if size < 8:  # 0: to the end of the file; otherwise broken
            break
        if name != b"mdat":
            yield at, min(at + size, view.nbytes)
        at += size
    yield min(at, view.nbytes), view.nbytes


def _claim(name: bytes, body: memoryview) -> int:
    """How many samples, chunks or edits one table declares. `body` starts with the box's version and flags."""
    if name in {b"stts", b"ctts"}:
        return int(_column(body, 0, of=2).sum(dtype=np.uint64))
    at = 8 if name in {b"stsz", b"stz2"} else 4
    return int.from_bytes(body[at : at + 4], "big")


def _column(body: memoryview, column: int, *, of: int) -> NDArray[np.uint32]:
    """One column of a table whose row count comes first; as many rows as are there."""
    rows = min(int.from_bytes(body[4:8], "big"), max(0, body.nbytes - 8) // (4 * of))
    return np.frombuffer(body[8 : 8 + rows * 4 * of], ">u4").reshape(rows, of)[:, column]
