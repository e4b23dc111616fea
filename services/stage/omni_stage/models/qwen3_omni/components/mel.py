"""Sound for the audio encoder: log-mel spectrograms, equal to the official feature extractor's."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch

RATE = 16_000
BINS = 128
_HOP = 160
_FFT = 400
_CHUNK = 100  # mel frames that the encoder convolves at a time (twice its window), and the tokens they make
_CHUNK_TOKENS = 13

# The Slaney mel scale: linear below 1 kHz, logarithmic above.
_KNEE_HZ, _KNEE_MEL = 1000.0, 15.0
_LOG_STEP = log(6.4) / 27.0


def log_mels(clips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """float32 samples at 16 kHz → [128, frames] per clip, 100 frames a second.

    Clips of one request are padded to the longest before the transform, as the official processor does: the frames
    at the very end of a shorter clip see silence, not its mirror image.
    """
    longest = max(len(clip) for clip in clips)
    batch = torch.stack([torch.nn.functional.pad(clip, (0, longest - len(clip))) for clip in clips])
    window = torch.hann_window(_FFT)
    power = torch.stft(batch, _FFT, _HOP, window=window, return_complex=True)[..., :-1].abs() ** 2
    mels = torch.clamp(_bank().T @ power.contiguous(), min=1e-10).log10()
    mels = torch.maximum(mels, mels.amax(dim=(1, 2), keepdim=True) - 8.0)
    mels = (mels + 4.0) / 4.0
    frames = [min(-(-len(clip) // _HOP), mels.shape[-1]) for clip in clips]
    return [mel[:, :count].contiguous() for mel, count in zip(mels, frames, strict=True)]


def audio_tokens(frames: int) -> int:
    """Prompt positions that the encoder makes of so many mel frames: three convolutions of stride 2 per chunk."""
    rest = frames % _CHUNK
    halved = (rest - 1) // 2 + 1
    return ((halved - 1) // 2 + 1 - 1) // 2 + 1 + frames // _CHUNK * _CHUNK_TOKENS


def _bank() -> torch.Tensor:
    """Triangular filters [frequencies, bins], each of area one (Slaney's norm)."""
    highest = RATE / 2
    frequencies = torch.linspace(0, highest, _FFT // 2 + 1, dtype=torch.float64)
    edges = _hertz(torch.linspace(0.0, _mel(highest), BINS + 2, dtype=torch.float64))
    widths = edges.diff()
    slopes = edges[None] - frequencies[:, None]
    triangles = torch.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]).clamp(min=0)
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))).to(torch.float32)


def _mel(hertz: float) -> float:
    return _KNEE_MEL + log(hertz / _KNEE_HZ) / _LOG_STEP if hertz >= _KNEE_HZ else 3.0 * hertz / 200.0


def _hertz(mels: torch.Tensor) -> torch.Tensor:
    return torch.where(mels >= _KNEE_MEL, _KNEE_HZ * torch.exp(_LOG_STEP * (mels - _KNEE_MEL)), 200.0 * mels / 3.0)
