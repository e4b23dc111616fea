"""What travels between Qwen3-Omni's stages.

Lengths: S prompt tokens, H the thinker's width, d deepstack layers, G code groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from omni_common.errors import Internal
from omni_common.request import FinishReason, Usage
from omni_common.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Which prompt position is what: all that the position encoding of the thinker and of the talker needs.

    `image_grid` and `video_grid` [k, 3] count patches over time, height and width; `audio_frames` are mel frames.
    """

    ids: Tensor
    image_grid: Tensor | None
    video_grid: Tensor | None
    audio_frames: tuple[int, ...]
    seconds_per_grid: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """Pictures and videos as uint8 [frames, 3, height, width], already at the size that the encoder wants.

    Patches are cut where the encoder runs: as float32 they would weigh eight times as much.
    """

    images: tuple[Tensor, ...]
    videos: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class AudioInputs:
    """One log-mel spectrogram [bins, frames] per clip."""

    mels: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokenised conversation. `speech`: the caller asked for audio.

    `script` is the answer where it is given, its end mark included; the thinker then has nothing to choose.
    """

    layout: Layout
    speech: bool
    usage: Usage
    script: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """What preprocess makes of a request; each part goes its own way."""

    prompt: Prompt
    images: ImageInputs | None
    audios: AudioInputs | None


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Per visual token a row for the prompt [n, H] and one for each of the first thinker layers [d, n, H]."""

    image: Tensor | None
    image_deepstack: Tensor | None
    video: Tensor | None
    video_deepstack: Tensor | None


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """Rows for the prompt [n, H], clip after clip."""

    audio: Tensor


@dataclass(frozen=True, slots=True)
class ThinkerInput:
    prompt: Prompt
    image: ImageFeatures | None
    audio: AudioFeatures | None


@dataclass(frozen=True, slots=True)
class TalkerPrompt:
    layout: Layout


@dataclass(frozen=True, slots=True)
class TextEnd:
    finish: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class TextTokens:
    """Generated text tokens; the last chunk of a request has `end`."""

    ids: tuple[int, ...]
    end: TextEnd | None = None


@dataclass(frozen=True, slots=True)
class TalkerPrefill:
    """What the talker hears of the prompt: one row [n, H] per position of the user's turns.

    `spoken_media` [n] marks the rows that come from the thinker's accept layer (image, audio and video positions);
    the others are plain embeddings. `header` [3, H] opens the assistant's turn. `marks` [3, H] are the embeddings of
    the begin, end and padding marks of text to be spoken.
    """

    rows: Tensor
    spoken_media: Tensor
    header: Tensor
    marks: Tensor


@dataclass(frozen=True, slots=True)
class SpokenTokens:
    """The embeddings [n, H] of the next text tokens that are to be spoken."""

    embeddings: Tensor


@dataclass(frozen=True, slots=True)
class CodecFrames:
    """Codec frames, int16 [n, G], 80 ms each."""

    codes: Tensor


PAYLOADS: tuple[type, ...] = (
    Layout,
    Usage,
    ImageInputs,
    AudioInputs,
    Prompt,
    ImageFeatures,
    AudioFeatures,
    ThinkerInput,
    TalkerPrompt,
    TextEnd,
    TextTokens,
    TalkerPrefill,
    SpokenTokens,
    CodecFrames,
)

T = TypeVar("T")


def expect(value: object, kind: type[T]) -> T:
    """The value, known to be of this kind. Raises Internal: another kind means that the graph is wired wrongly."""
    if not isinstance(value, kind):
        raise Internal(f"A stage was sent a {type(value).__name__} where it takes a {kind.__name__}.")
    return value
