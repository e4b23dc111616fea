"""A file as a word: what kind it is, how long, and a checksum that shows whether it came through whole."""

from __future__ import annotations

import zlib

from omni_stage.models.echo.payload_types import File


def describe(file: File) -> str:
    return f"{file.modality}:{file.data.nbytes}:{zlib.crc32(file.data.data):08x}"
