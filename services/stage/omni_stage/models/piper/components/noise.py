"""The noise of one sentence, drawn so that it depends on the seed and the sentence alone: not on the batch, not on the
padding, not on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Noise:
    """Standard normal, two independent streams. More of a stream begins with less of it."""

    def __init__(self, seed: int, speaker: int, ids: npt.NDArray[np.int16]) -> None:
        self._key = b"%d/%d/" % (seed, speaker) + ids.astype("<i2").tobytes()

    def durations(self, phonemes: int) -> Floats:
        """[2, phonemes]"""
        return self._draw("durations", phonemes, 2)

    def latents(self, frames: int, channels: int) -> Floats:
        """[channels, frames]"""
        return self._draw("latents", frames, channels)

    def _draw(self, stream: str, steps: int, width: int) -> Floats:
        digest = hashlib.blake2b(self._key, digest_size=16, person=stream.encode()).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        return generator.standard_normal((steps, width), np.float32).T
