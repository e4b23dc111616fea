"""A word as a tone."""

from __future__ import annotations

import zlib

import numpy as np

_LOUDNESS = 0.3
_FADE = 120  # samples at either end; without them every tone begins and ends with a click


def tone(word: str, base_hz: float, samples: int, *, rate: int) -> bytes:
    """Signed 16-bit little-endian samples: as many semitones above the base as the word's checksum says, up to 23."""
    hz = base_hz * 2 ** (zlib.crc32(word.strip().encode()) % 24 / 12)
    wave = np.sin(2 * np.pi * hz * np.arange(samples) / rate)
    ramp = np.minimum(1.0, np.arange(samples) / _FADE)
    return (wave * ramp * ramp[::-1] * _LOUDNESS * 32767).astype("<i2").tobytes()
