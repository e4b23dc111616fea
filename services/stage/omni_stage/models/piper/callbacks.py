"""What the caller gets, and when: the samples of each sentence as soon as it is synthesised."""

from __future__ import annotations

from collections.abc import Sequence

from omni_common.request import AudioOutput, TerminalResult, Usage
from omni_stage.models.piper.request_builders import seed_of
from omni_stage.scheduler.contract import NewRequest

PAUSE_SECONDS = 0.2  # after a sentence, as Piper's own program makes it
_CHUNK_SECONDS = 0.5  # of one output: a caller that reads slowly holds its sentence back in small steps
_BYTES = 2  # of a sample


class Speech:
    """The session of synthesise.

    Its usage counts phonemes as prompt tokens, with the two that frame a sentence and without padding; and frames of
    the model, of 256 samples in the voices there are, as audio tokens.
    """

    def __init__(self, request: NewRequest, sample_rate: int) -> None:
        self.seed = seed_of(request.params)
        self._sample_rate = sample_rate
        self._phonemes = 0
        self._frames = 0

    def say(self, pcm: bytes, *, phonemes: int, frames: int, pause: bool) -> Sequence[AudioOutput]:
        """The outputs of one sentence: 16-bit samples, and silence after them where there is a pause."""
        self._phonemes += phonemes
        self._frames += frames
        if pause:
            pcm += bytes(_BYTES * int(PAUSE_SECONDS * self._sample_rate))
        size = _BYTES * int(_CHUNK_SECONDS * self._sample_rate)
        return [AudioOutput(pcm[at : at + size], self._sample_rate) for at in range(0, len(pcm), size)]

    def finish(self) -> tuple[Sequence[object], object]:
        usage = Usage(prompt_tokens=self._phonemes, completion_audio_tokens=self._frames)
        return (), TerminalResult(None, usage)

    def close(self) -> None:
        """A session holds nothing but itself."""
