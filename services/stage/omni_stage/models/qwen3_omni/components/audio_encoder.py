"""Spectrograms to rows of the prompt."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.models.qwen3_omni.components.weights import Weights
from omni_stage.models.qwen3_omni.payload_types import AudioFeatures, AudioInputs

PREFIX = "thinker.audio_tower."


class AudioEncoder:
    """Encodes one request at a time: the encoder pads the last chunk of a clip to the longest chunk of its batch and
    convolves over the padding, so that sharing a batch with strangers would change the result."""

    def __init__(self, weights: Weights) -> None:
        config = weights.config.thinker_config.audio_config
        self._model: Any = weights.checkpoint.module(
            lambda: modeling.Qwen3OmniMoeAudioEncoder._from_config(config, dtype=weights.dtype), PREFIX
        )
        self._device = weights.device
        self._dtype = weights.dtype

    def encode(self, inputs: AudioInputs) -> AudioFeatures:
        with torch.inference_mode():
            mels = torch.cat([to_torch(mel, self._device) for mel in inputs.mels], dim=1).to(self._dtype)
            lengths = torch.tensor([mel.shape[1] for mel in inputs.mels], device=self._device)
            output = self._model(mels, feature_lens=lengths, return_dict=True)
        return AudioFeatures(from_torch(output.last_hidden_state))
