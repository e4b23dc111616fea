"""Whether a WAV file is all there: FFmpeg takes one that was cut off for a shorter one."""

from __future__ import annotations

import struct

from omni_stage.media.budget import Buffer, Meter

# Writers that cannot seek back leave the length at 0 or near the top of its range, signed or not.
_UNKNOWN = 0x7FFF_0000


def check_complete(data: Buffer, meter: Meter) -> None:
    """Raises InvalidRequest when a tenth or more of the declared samples is missing."""
    view = memoryview(data)
    at = 12
    while at + 8 <= view.nbytes:
        name, size = struct.unpack_from("<4sI", view, at)
        at += 8
        if name == b"data":
            if view.nbytes - at < 0.9 * size and size < _UNKNOWN:
                raise meter.invalid(f"ends after {view.nbytes - at:,} of the {size:,} bytes that its header declares")
            return
        at += size + size % 2
