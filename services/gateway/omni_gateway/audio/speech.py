"""Speech for one answer: the mesh's pieces of PCM become the caller's format, off the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio.to_thread
from anyio import CapacityLimiter
from av.error import FFmpegError

from omni_common.clock import monotonic
from omni_common.errors import Internal
from omni_common.request import AudioOutput
from omni_common.telemetry import spans
from omni_common.telemetry.tracing import Attributes, current, record
from omni_gateway.audio.encoder import Encoder, new_encoder, set_flac_length, wav_header
from omni_gateway.audio.formats import SAMPLE_RATE
from omni_gateway.audio.pcm import PcmStep, steps_to_caller

# Whole samples, and whole groups of base64: callers may join the base64 of several pieces before they decode it.
_UNIT = 6


class SpeechStream:
    """Pieces in, pieces out; nothing is held back but what the codec needs and up to five bytes."""

    def __init__(self, form: str, threads: CapacityLimiter, *, speed: float = 1) -> None:
        self._form = form
        self._threads = threads
        self._speed = speed
        self._rate: int | None = None
        self._steps: PcmStep | None = None
        self._encoder: Encoder | None = None
        self._rest = b""
        self._began: float | None = None
        self._busy = 0.0

    async def encode(self, pieces: Sequence[AudioOutput]) -> bytes:
        """What these pieces add to the file, in whole units; may be empty."""
        if not pieces:
            return b""
        made = self._rest + await self._off_loop(lambda: self._encode(pieces))
        whole = len(made) - len(made) % _UNIT
        self._rest = made[whole:]
        return made[:whole]

    async def finish(self) -> bytes:
        """The rest of the file."""
        last = await self._off_loop(self._finish)
        self._note()
        return self._rest + last

    @property
    def samples(self) -> int:
        """Samples encoded so far."""
        return 0 if self._encoder is None else self._encoder.samples

    async def _off_loop(self, work: Callable[[], bytes]) -> bytes:
        # A cancelled caller waits for the thread, some milliseconds: the encoder is never used by two at once.
        began = monotonic()
        if self._began is None:
            self._began = began
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        except FFmpegError as error:
            raise Internal("The speech could not be encoded.") from error
        finally:
            self._busy += monotonic() - began

    def _note(self) -> None:
        """One span for the whole file, in the trace of the request that this task answers."""
        request = current()
        if self._began is not None and request.is_recording():
            about: Attributes = {
                spans.FORMAT: self._form,
                spans.AUDIO_SECONDS: self.samples / SAMPLE_RATE,
                spans.BUSY_SECONDS: self._busy,
            }
            record(spans.AUDIO_ENCODE, request, monotonic() - self._began, about)

    def _encode(self, pieces: Sequence[AudioOutput]) -> bytes:
        self._rate = self._rate or pieces[0].sample_rate
        if any(piece.sample_rate != self._rate for piece in pieces):
            raise Internal("The speech changed its sample rate.")
        steps = self._steps = self._steps or steps_to_caller(self._rate, self._speed)
        pcm = steps.convert(b"".join(piece.pcm for piece in pieces))
        return self._open().encode(pcm) if pcm else b""

    def _finish(self) -> bytes:
        encoder = self._open()
        tail = encoder.encode(self._steps.finish()) if self._steps is not None else b""
        return tail + encoder.finish()

    def _open(self) -> Encoder:
        self._encoder = self._encoder or new_encoder(self._form)
        return self._encoder


class SpeechFile:
    """A whole file, encoded as its pieces come. `hold` is told of its bytes before they are kept."""

    def __init__(self, form: str, threads: CapacityLimiter, *, hold: Callable[[int], None], speed: float = 1) -> None:
        # The heads of WAV and FLAC files tell their length, so they are written last.
        self._wav, self._flac = form == "wav", form == "flac"
        self._stream = SpeechStream("pcm16" if self._wav else form, threads, speed=speed)
        self._hold = hold
        self._made = bytearray(len(wav_header(None)) if self._wav else 0)

    async def add(self, pieces: Sequence[AudioOutput]) -> None:
        self._keep(await self._stream.encode(pieces))

    async def finish(self) -> bytearray:
        self._keep(await self._stream.finish())
        if self._flac:
            set_flac_length(self._made, self._stream.samples)
        if self._wav:
            head = len(wav_header(None))
            self._made[:head] = wav_header(len(self._made) - head)
        return self._made

    def _keep(self, data: bytes) -> None:
        self._hold(len(data))
        self._made += data
