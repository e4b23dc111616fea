"""Positions over time, height and width (M-RoPE) of a prompt's tokens, by the model's own rule."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_stage.components.tensors import to_torch
from omni_stage.models.qwen3_omni.payload_types import Layout

_READ = (
    "image_token_id",
    "video_token_id",
    "audio_token_id",
    "vision_start_token_id",
    "audio_start_token_id",
    "position_id_per_seconds",
)


class PositionRule:
    """The rule of the thinker or of the talker; they differ in their configs only."""

    def __init__(self, config: Any, audio_config: Any, merge: int) -> None:
        # The rule is a method of a class that would hold a whole model; it reads nothing of it but these. The talker's
        # own config lacks `audio_config`, without which a prompt of pictures and sound fails in transformers.
        model: Any = modeling.Qwen3OmniMoePreTrainedModelForConditionalGeneration
        self._rule = model.get_rope_index
        self._model = SimpleNamespace(
            config=SimpleNamespace(**{name: getattr(config, name) for name in _READ}, audio_config=audio_config),
            spatial_merge_size=merge,
        )
        self._model.get_llm_pos_ids_for_vision = lambda *a: model.get_llm_pos_ids_for_vision(self._model, *a)

    def positions(self, ids: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, int]:
        """For ids [n]: positions [3, n], and how far those of generated tokens are from their index."""
        image_grid = None if layout.image_grid is None else to_torch(layout.image_grid)
        video_grid = None if layout.video_grid is None else to_torch(layout.video_grid)
        positions, delta = self._rule(
            self._model,
            ids[None],
            image_grid,
            video_grid,
            torch.ones_like(ids)[None],
            False,  # a video's own sound is not used
            torch.tensor(layout.audio_frames),
            torch.tensor(layout.seconds_per_grid),
        )
        return positions[:, 0].to(torch.float32), int(delta.reshape(-1)[0])
