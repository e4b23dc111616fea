"""Pictures for the vision encoder: sized where requests are prepared, cut into patches where the encoder runs.

Equal to the official image and video processors (their torchvision path) without torchvision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

import torch

from omni_common.errors import InvalidRequest

_MAX_ASPECT = 200  # above it the sides cannot both be multiples of a patch within the pixel limits
_MERGED_PATCH = 32  # pixels, of the real model; the sizes below are the official processor's defaults
_VIDEO_MIN, _VIDEO_MAX = 128 * _MERGED_PATCH**2, 768 * _MERGED_PATCH**2


@dataclass(frozen=True, slots=True)
class PixelRules:
    """What preprocessor_config.json says about pictures. Video frames have size limits of their own."""

    patch: int = 16
    merge: int = 2
    temporal_patch: int = 2
    min_pixels: int = 3136
    max_pixels: int = 12_845_056
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, folder: Path) -> PixelRules:
        said, usual = preprocessor_config(folder, "image_processor"), cls()
        size = said.get("size") or {}
        return cls(
            patch=said.get("patch_size", usual.patch),
            merge=said.get("merge_size", usual.merge),
            temporal_patch=said.get("temporal_patch_size", usual.temporal_patch),
            min_pixels=said.get("min_pixels") or size.get("shortest_edge", usual.min_pixels),
            max_pixels=said.get("max_pixels") or size.get("longest_edge", usual.max_pixels),
            mean=tuple(said.get("image_mean", usual.mean)),
            std=tuple(said.get("image_std", usual.std)),
        )

    def grid(self, frames: torch.Tensor) -> tuple[int, int, int]:
        """Patches over time, height and width of sized frames [T, 3, height, width]."""
        count, _, height, width = frames.shape
        return ceil(count / self.temporal_patch), height // self.patch, width // self.patch

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Prompt positions that the patches take."""
        time, rows, columns = grid
        return time * rows * columns // self.merge**2


def preprocessor_config(folder: Path, part: str) -> dict[str, Any]:
    """The published flat preprocessor_config.json, or the part of a processor_config.json of newer writers."""
    nested, flat = folder / "processor_config.json", folder / "preprocessor_config.json"
    if nested.is_file():
        found: dict[str, Any] = json.loads(nested.read_bytes()).get(part, {})
        if found:
            return found
    loaded: dict[str, Any] = json.loads(flat.read_bytes()) if flat.is_file() else {}
    return loaded


def size_image(image: torch.Tensor, rules: PixelRules, param: str) -> torch.Tensor:
    """uint8 [height, width, 3] → uint8 [1, 3, height, width] at the encoder's size."""
    return _sized(image.permute(2, 0, 1)[None], rules, rules.min_pixels, rules.max_pixels, param)


def size_video(frames: torch.Tensor, rules: PixelRules, param: str) -> torch.Tensor:
    """uint8 [T, height, width, 3] → uint8 [T, 3, height, width] at the encoder's size."""
    return _sized(frames.permute(0, 3, 1, 2), rules, _VIDEO_MIN, _VIDEO_MAX, param)


def patches(frames: torch.Tensor, rules: PixelRules) -> torch.Tensor:
    """Sized uint8 frames [T, 3, height, width] → float32 [patches, 3 · time · patch · patch] in the encoder's order.

    A picture counts as a film of equal frames, and the last frame of an odd film is shown twice.
    """
    pixels = frames.to(torch.float32) * (1 / 255)
    mean, std = (torch.tensor(v, device=frames.device).view(1, 3, 1, 1) for v in (rules.mean, rules.std))
    pixels = (pixels - mean) / std
    if short := -pixels.shape[0] % rules.temporal_patch:
        pixels = torch.cat([pixels, pixels[-1:].repeat(short, 1, 1, 1)])
    time, rows, columns = rules.grid(pixels)
    merge, patch = rules.merge, rules.patch
    pixels = pixels.reshape(time, rules.temporal_patch, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    # Patches that will be merged into one token come next to each other.
    return pixels.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(time * rows * columns, -1)


def _sized(frames: torch.Tensor, rules: PixelRules, least: int, most: int, param: str) -> torch.Tensor:
    height, width = frames.shape[-2:]
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise InvalidRequest(
            f"A picture of {width} by {height} pixels is too narrow: its sides may differ {_MAX_ASPECT}-fold.",
            param=param or None,
        )
    size = smart_size(height, width, rules.patch * rules.merge, least, most)
    if size == (height, width):
        return frames.contiguous()
    # On uint8, as torchvision calls it: the kernel for bytes rounds otherwise than the one for floats.
    return torch.nn.functional.interpolate(frames, size=size, mode="bicubic", antialias=True)


def smart_size(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """The nearest size with sides divisible by `factor` and a pixel count within the limits, at about the aspect."""
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > most:
        shrink = sqrt(height * width / most)
        rows = max(factor, floor(height / shrink / factor) * factor)
        columns = max(factor, floor(width / shrink / factor) * factor)
    elif rows * columns < least:
        stretch = sqrt(least / (height * width))
        rows, columns = ceil(height * stretch / factor) * factor, ceil(width * stretch / factor) * factor
    return rows, columns
