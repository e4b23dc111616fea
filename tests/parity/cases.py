"""The requests that the mesh and the reference must answer alike: every mixture of modalities.

Pictures and films have sizes that need no resizing, so that the reference can use official preprocessing, which
resizes only with torchvision.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import av
import numpy as np
from PIL import Image

from omni_common.request import (
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Part,
    Role,
    Sampling,
    Text,
)

TEXT_TOKENS = 24
FRAMES = 40  # what `generate` calls new tokens of the talker: one more than the frames that are spoken
SYSTEM = "You are a helpful assistant."
QUESTION = "What is this?"
LONG = "a picture after a turn with sound and a picture"
CASES: Mapping[str, str] = {
    "text": "t",
    "image": "it",
    "audio": "at",
    "video": "vt",
    "image and audio": "iat",
    "image, audio and video": "iavt",
    "two images": "ijt",
    LONG: "jt",
}


@dataclass(frozen=True, slots=True)
class Draw:
    """How tokens are chosen: `seed` None is greedy."""

    seed: int | None

    def params(self) -> GenerationParams:
        temperature = 0.0 if self.seed is None else None
        return GenerationParams(
            modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
            sampling=Sampling(temperature=temperature, seed=self.seed, max_tokens=TEXT_TOKENS),
            stage_sampling={"talker": Sampling(temperature=temperature, max_tokens=FRAMES)},
        )


def request(case: str, draw: Draw) -> GenerationRequest:
    return GenerationRequest("qwen3-omni", messages(case), draw.params())


def messages(case: str) -> tuple[Message, ...]:
    """A system's turn and a user's; in the long conversation, one more of the user's with its answer."""
    before = (
        Message(Role.USER, (*parts("audio"), *parts("image"))),
        Message(Role.ASSISTANT, (Text("A tone, and noise."),)),
    )
    middle = before if case == LONG else ()
    return (Message(Role.SYSTEM, (Text(SYSTEM),)), *middle, Message(Role.USER, parts(case)))


def parts(case: str) -> tuple[Part, ...]:
    made: dict[str, Part] = {
        "t": Text(QUESTION),
        "i": Media(Modality.IMAGE, picture(1, 96, 64)),
        "j": Media(Modality.IMAGE, picture(2, 64, 160)),
        "a": Media(Modality.AUDIO, sound()),
        "v": Media(Modality.VIDEO, film()),
    }
    return tuple(made[letter] for letter in CASES[case])


@cache
def picture(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@cache
def sound() -> bytes:
    """2.3 seconds at 16 kHz: not a whole number of the encoder's chunks."""
    times = np.arange(int(16_000 * 2.3)) / 16_000
    noise = np.random.default_rng(3).standard_normal(len(times))
    samples = 0.3 * np.sin(2 * np.pi * 440 * times) + 0.05 * noise
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


@cache
def film() -> bytes:
    """Three frames at two a second: an odd number, so that the last one is shown twice."""
    rng = np.random.default_rng(4)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 512, 288, "yuv420p"
        for _ in range(3):
            pixels = np.kron(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8), np.ones((32, 32, 1), dtype=np.uint8))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return out.getvalue()
