"""What the caller has of one terminal stage's output, kept so that another attempt can be held against it.

Pieces are cut where the stage's queue happened to end, so attempts are compared as streams:

* text byte for byte; all but its end by the hashes of blocks;
* speech by one sample of `STRIDE`, its end by all, and up to noise far below the signal: a vocoder decodes what has
  queued up as one piece, and other cuts of the same frames round otherwise. With the vocoder of Qwen3-Omni in float32,
  one sample in eight then differs, by up to two steps, so that no hash would ever fit;
* segments of a transcript one by one, without their measures, which round with the batch that they were read in.

What is kept is bounded: output beyond the bound is not kept, and a transcript that is not whole is of no use.
"""

from __future__ import annotations

from omni_common.request import AudioOutput, Output, Segment, TextOutput
from omni_coordinator.core.speech_track import SpeechTrack
from omni_coordinator.core.tracks import ItemTrack, Replay, TextTrack, Track


class Transcript:
    """All that the caller has from one terminal stage; `is_whole` until something could not be kept."""

    def __init__(self, *, keep: bool = True) -> None:
        self.is_whole = keep
        self._track: Track | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the caller has nothing of the stage yet."""
        return self.is_whole and self._track is None

    def note(self, output: Output) -> None:
        """The caller gets it."""
        if not self.is_whole:
            return
        if self._track is None:
            self._track = _track_for(output)
        if not self._track.note(output):
            self.is_whole, self._track = False, None

    def replay(self) -> Replay | None:
        """For a new attempt; None where the caller has nothing."""
        return None if self._track is None else self._track.replay()


def _track_for(output: Output) -> Track:
    match output:
        case TextOutput():
            return TextTrack()
        case AudioOutput(_, rate):
            return SpeechTrack(rate)
        case Segment():
            return ItemTrack()
