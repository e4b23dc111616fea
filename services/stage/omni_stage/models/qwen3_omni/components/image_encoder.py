"""Pictures and videos to rows of the prompt and of the thinker's first layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_common.tensor import Tensor
from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.models.qwen3_omni.components.pixels import PixelRules, patches
from omni_stage.models.qwen3_omni.components.weights import Weights
from omni_stage.models.qwen3_omni.payload_types import ImageFeatures, ImageInputs

PREFIX = "thinker.visual."


class ImageEncoder:
    """Encodes the pictures of several requests in one forward; attention never looks past one frame."""

    def __init__(self, weights: Weights) -> None:
        config = weights.config.thinker_config.vision_config
        self._model: Any = weights.checkpoint.module(
            lambda: modeling.Qwen3OmniMoeVisionEncoder._from_config(config, dtype=weights.dtype), PREFIX
        )
        self._rules = PixelRules.of(weights.folder)
        self._device = weights.device
        self._dtype = weights.dtype

    def encode(self, requests: Sequence[ImageInputs]) -> list[ImageFeatures]:
        films = [film for request in requests for film in (*request.images, *request.videos)]
        with torch.inference_mode():
            rows, deepstack = self._forward([to_torch(film, self._device) for film in films])
        features: list[ImageFeatures] = []
        start = 0
        for request in requests:
            parts: list[Tensor | None] = []
            for kind in (request.images, request.videos):
                end = start + sum(self._rules.tokens(self._grid(film)) for film in kind)
                parts += [from_torch(rows[start:end]), from_torch(deepstack[:, start:end])] if kind else [None, None]
                start = end
            features.append(ImageFeatures(*parts))
        return features

    def _forward(self, films: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows [n, H] and deepstack rows [d, n, H], film after film."""
        grid = torch.tensor([self._rules.grid(film) for film in films], device=self._device)
        pixels = torch.cat([patches(film, self._rules) for film in films]).to(self._dtype)
        output = self._model(pixels, grid_thw=grid, return_dict=True)
        return output.pooler_output.cpu(), torch.stack(list(output.deepstack_features)).cpu()

    def _grid(self, film: Tensor) -> tuple[int, int, int]:
        frames, _, height, width = film.shape
        return -(-frames // self._rules.temporal_patch), height // self._rules.patch, width // self._rules.patch

    def cost(self, inputs: ImageInputs) -> float:
        """In pixels, which is what a batch's memory grows with."""
        return float(sum(prod(film.shape) for film in (*inputs.images, *inputs.videos)))
