"""Speech as callers get it, and as they read it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import av
import numpy as np
import openai
from numpy.typing import NDArray

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[Format, ...] = ("mp3", "opus", "aac", "flac", "wav", "pcm")
RATE = 24_000
MODEL = "piper"

_READERS: Mapping[str, str] = {"mp3": "mp3", "opus": "ogg", "aac": "aac", "flac": "flac", "wav": "wav"}


@dataclass(frozen=True, slots=True)
class Speech:
    """A file, and the pieces in which it came."""

    form: Format
    content_type: str
    pieces: tuple[bytes, ...]
    usage: Mapping[str, int] | None = None

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def samples(self) -> NDArray[np.int16]:
        return samples(self.data, self.form)

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    @classmethod
    async def of(cls, client: openai.AsyncOpenAI, text: str, form: Format, **more: Any) -> Self:
        """The whole answer at once."""
        reply = await client.audio.speech.create(model=MODEL, input=text, voice="", response_format=form, **more)
        return cls(form, reply.response.headers["content-type"], (reply.content,))

    @classmethod
    async def streamed(cls, client: openai.AsyncOpenAI, text: str, form: Format, **more: Any) -> Self:
        """The body as it comes."""
        async with client.audio.speech.with_streaming_response.create(
            model=MODEL, input=text, voice="", response_format=form, **more
        ) as reply:
            pieces = [piece async for piece in reply.iter_bytes()]
            return cls(form, reply.headers["content-type"], tuple(pieces))

    @classmethod
    async def events(cls, client: openai.AsyncOpenAI, text: str, form: Format, **more: Any) -> Self:
        """As server-sent events; the last one tells the usage."""
        async with client.audio.speech.with_streaming_response.create(
            model=MODEL, input=text, voice="", response_format=form, stream_format="sse", **more
        ) as reply:
            lines = [line async for line in reply.iter_lines() if line.startswith("data: ")]
            *deltas, done = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
        assert done["type"] == "speech.audio.done"
        pieces = tuple(base64.b64decode(delta["audio"]) for delta in deltas)
        return cls(form, reply.headers["content-type"], pieces, done["usage"])


def samples(data: bytes, form: Format) -> NDArray[np.int16]:
    """What a player makes of it: mono at 24 kHz."""
    if form == "pcm":
        return np.frombuffer(data, "<i2")
    with av.open(io.BytesIO(data), format=_READERS[form]) as file:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        parts = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
        parts += resampler.resample(None)
        return np.concatenate([part.to_ndarray().reshape(-1) for part in parts])


# Of an MP3 that may follow itself: nothing is around its frames, and none of them is partly in the one before.
_REPEATABLE = {"write_xing": "0", "id3v2_version": "0", "write_id3v1": "0"}, {"reservoir": "0"}


def long_mp3(pcm: NDArray[np.int16], times: int) -> bytes:
    """A recording that is so often as long; it takes as long to encode as this once."""
    return encoded(pcm, "mp3", "libmp3lame", options=_REPEATABLE) * times


def encoded(
    pcm: NDArray[np.int16],
    container: str,
    codec: str,
    *,
    rate: int = RATE,
    source_rate: int = RATE,
    options: tuple[dict[str, str], dict[str, str]] = ({}, {}),
) -> bytes:
    """A recording as somebody's device would write it; `rate` is the file's, `source_rate` that of the samples.

    `options`: of the container and of the codec.
    """
    out = io.BytesIO()
    with av.open(out, mode="w", format=container, options=options[0]) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono", options=options[1])
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = source_rate
        for part in av.AudioResampler(format=stream.format.name, layout="mono", rate=rate).resample(frame):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()
