"""The formats that callers may ask speech in, and how PyAV makes each of them as a stream.

Measured for 80 ms pieces at 24 kHz: mp3 without a bit reservoir can be decoded 64 ms behind, Opus in pages of 20 ms
26 to 66 ms (with default pages: 2 s), AAC and FLAC about 90 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# What every format is made at; `pcm16` means this rate to OpenAI's clients, whatever the model's own is.
SAMPLE_RATE = 24_000
SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Container:
    """A codec in a container that can be written without seeking."""

    muxer: str
    codec: str
    muxer_options: Mapping[str, str]
    codec_options: Mapping[str, str] = field(default_factory=dict)


_FLUSH = {"flush_packets": "1"}

# pcm16 and wav are absent: they need a header at most, which `audio.encoder` writes itself.
CONTAINERS: Mapping[str, Container] = MappingProxyType(
    {
        "mp3": Container("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0", **_FLUSH}, {"reservoir": "0"}),
        "opus": Container("ogg", "libopus", {"page_duration": "20000", **_FLUSH}, {"frame_duration": "20"}),
        "aac": Container("adts", "aac", _FLUSH),
        "flac": Container("flac", "flac", _FLUSH),
    }
)
