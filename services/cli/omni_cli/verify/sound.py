"""Pure: whether samples are speech, as far as their length and their loudness can say."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from omni_cli.conversation import SAMPLE_RATE

# Speech is at -35 dBFS and above, dithered silence below -90. Between them is room for a voice that whispers.
QUIETEST = -60.0
_FULL = 32_768


@dataclass(frozen=True, slots=True)
class Sound:
    """`level` is the mean in dB below full scale; of nothing, and of zeros, it is minus infinity."""

    seconds: float
    level: float


def sound_of(pcm: bytes | bytearray) -> Sound:
    """Of mono samples of 16 bits, little-endian. Raises ValueError when they end in the middle of one."""
    samples = array("h")
    samples.frombytes(pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    power = sum(sample * sample for sample in samples) / max(len(samples), 1)
    level = 10 * math.log10(power / _FULL**2) if power else -math.inf
    return Sound(len(samples) / SAMPLE_RATE, level)


def wrong_with(sound: Sound, *, at_least: float) -> Iterator[str]:
    """`at_least`: seconds, below which nobody can have said anything."""
    if not sound.seconds:
        yield "No audio came."
    elif sound.seconds < at_least:
        yield f"Only {sound.seconds:.2f} s of audio came; anything said takes {at_least:g} s."
    elif sound.level < QUIETEST:
        yield f"The audio is silent: its level is {level_text(sound.level)}, speech is above {QUIETEST:g} dBFS."


def level_text(level: float) -> str:
    return "-∞ dBFS" if math.isinf(level) else f"{level:.0f} dBFS"
