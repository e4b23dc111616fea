"""Streaming encoders: pieces of PCM in, pieces of a file out.

An encoder belongs to one answer. Its methods block for about a millisecond per 80 ms of speech, so callers run them
in a worker thread, one call at a time; PyAV lets go of the GIL.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

import av

from omni_gateway.audio.formats import CONTAINERS, SAMPLE_BYTES, SAMPLE_RATE, Container
from omni_gateway.audio.pcm import frame_of

# Stands for a length that nobody knows yet; readers take it as "until the end".
_UNKNOWN_LENGTH = 0xFFFFFFFF


class Encoder(Protocol):
    """Signed 16-bit little-endian mono PCM at 24 kHz, to one format."""

    samples: int

    def encode(self, pcm: bytes) -> bytes:
        """What these samples add to the file; empty when the codec still gathers a frame."""

    def finish(self) -> bytes:
        """The end of the file. Nothing is encoded afterwards."""


def new_encoder(form: str, *, length: int | None = None) -> Encoder:
    """`length` is the number of PCM bytes to come, where it is known: a WAV header tells it."""
    if form == "pcm16":
        return _Pcm()
    if form == "wav":
        return _Wav(length)
    return _Coded(CONTAINERS[form])


def encode_whole(form: str, pcm: bytes) -> bytes:
    """A complete file."""
    encoder = new_encoder(form, length=len(pcm))
    return encoder.encode(pcm) + encoder.finish()


def wav_header(length: int | None) -> bytes:
    """The 44 bytes before the samples of a WAV file."""
    data = _UNKNOWN_LENGTH if length is None else min(length, _UNKNOWN_LENGTH - 36)
    riff = _UNKNOWN_LENGTH if length is None else data + 36
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        riff,
        b"WAVE",
        b"fmt ",
        16,
        1,  # PCM
        1,  # channel
        SAMPLE_RATE,
        SAMPLE_RATE * SAMPLE_BYTES,
        SAMPLE_BYTES,
        SAMPLE_BYTES * 8,
        b"data",
        data,
    )


def set_flac_length(file: bytearray, samples: int) -> None:
    """Writes the number of samples, 36 bits of STREAMINFO, into the head of a whole FLAC file. A streamed one leaves
    them 0, for unknown, which FFmpeg and players take and libsndfile does not."""
    at = len(b"fLaC") + 4 + 13  # the block's head, then the fields before
    file[at] = (file[at] & 0xF0) | (samples >> 32 & 0x0F)
    file[at + 1 : at + 5] = (samples & 0xFFFFFFFF).to_bytes(4, "big")


class _Pcm:
    def __init__(self) -> None:
        self.samples = 0

    def encode(self, pcm: bytes) -> bytes:
        self.samples += len(pcm) // SAMPLE_BYTES
        return pcm

    def finish(self) -> bytes:
        return b""


class _Wav:
    def __init__(self, length: int | None) -> None:
        self._header = wav_header(length)
        self.samples = 0

    def encode(self, pcm: bytes) -> bytes:
        self.samples += len(pcm) // SAMPLE_BYTES
        header, self._header = self._header, b""
        return header + pcm

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header


class _Sink:
    """A file that can only be written, as a stream to a caller is."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class _Coded:
    def __init__(self, container: Container) -> None:
        self._sink = _Sink()
        self._file: Any = av.open(self._sink, mode="w", format=container.muxer, options=dict(container.muxer_options))
        self._stream: Any = self._file.add_stream(
            container.codec, rate=SAMPLE_RATE, layout="mono", options=dict(container.codec_options)
        )
        self.samples = 0

    def encode(self, pcm: bytes) -> bytes:
        if pcm:
            self._feed(pcm)
        return self._sink.take()

    def finish(self) -> bytes:
        # An encoder that has seen no sample is not open yet and cannot be flushed: no speech becomes 20 ms of silence.
        if not self.samples:
            self._feed(bytes(SAMPLE_RATE * SAMPLE_BYTES // 50))
        self._file.mux(self._stream.encode(None))
        self._file.close()
        return self._sink.take()

    def _feed(self, pcm: bytes) -> None:
        frame = frame_of(pcm, SAMPLE_RATE)
        frame.pts = self.samples
        self.samples += frame.samples
        self._file.mux(self._stream.encode(frame))
