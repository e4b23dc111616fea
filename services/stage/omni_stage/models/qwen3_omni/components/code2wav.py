"""The vocoder: codec frames to samples, each frame decoded once.

The model's own `forward` decodes a whole utterance. Here the same modules run piece by piece, with what each needs of
the past kept beside it: the transformer's keys and values, the left context of each convolution. The pieces together
are the whole, up to rounding, however they are cut. A transposed convolution needs the next input before a block of
its output is final, so the output lags: after n frames exactly n · 1920 − 555 samples are out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_common.request import AudioOutput
from omni_stage.components.tensors import to_torch
from omni_stage.models.qwen3_omni.callbacks import speech_result
from omni_stage.models.qwen3_omni.components.weights import Weights
from omni_stage.models.qwen3_omni.config import SAMPLE_RATE
from omni_stage.models.qwen3_omni.payload_types import CodecFrames, expect

PREFIX = "code2wav."


def load_vocoder(weights: Weights) -> nn.Module:
    config = weights.config.code2wav_config
    model: nn.Module = weights.checkpoint.module(
        lambda: modeling.Qwen3OmniMoeCode2Wav._from_config(config, dtype=weights.dtype), PREFIX
    )
    return model


class StreamingVocoder:
    """One utterance's state in a shared vocoder."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._context: dict[nn.Module, torch.Tensor] = {}

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The next frames [G, n] → the samples that became final, float32 in [-1, 1]."""
        model = self._model
        hidden = model.code_embedding(codes[None] + model.code_offset).mean(1)
        output = model.pre_transformer(inputs_embeds=hidden, past_key_values=self._cache, use_cache=True)
        wave = output.last_hidden_state.permute(0, 2, 1)
        wave = self._chain((block for blocks in model.upsample for block in blocks), wave)
        wave = self._chain(model.decoder, wave)
        return wave.clamp(-1, 1).reshape(-1).float() if wave.shape[-1] else torch.empty(0)

    def _chain(self, modules: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
        for module in modules:
            if x.shape[-1] == 0:  # a transposed convolution is still waiting for its second input
                break
            x = self._run(module, x)
        return x

    def _run(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        if isinstance(module, modeling.Qwen3OmniMoeCausalConvNet):
            return self._convolve(module, x)
        if isinstance(module, modeling.Qwen3OmniMoeCausalTransConvNet):
            return self._upsample(module, x)
        if isinstance(module, modeling.Qwen3OmniMoeConvNeXtBlock):
            return self._conv_next(module, x)
        if isinstance(module, modeling.Qwen3OmniMoeCode2WavDecoderResidualUnit):
            return self._chain((module.act1, module.conv1, module.act2, module.conv2), x) + x
        if isinstance(module, modeling.Qwen3OmniMoeCode2WavDecoderBlock):
            return self._chain(module.block, x)
        pointwise: torch.Tensor = module(x)
        return pointwise

    def _convolve(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        """The zeros that `forward` pads on the left are the context of the first piece only."""
        if module.padding:
            before = self._context.get(module)
            if before is None:
                before = x.new_zeros(x.shape[0], x.shape[1], module.padding)
            x = torch.cat([before, x], dim=-1)
            self._context[module] = x[..., -module.padding :]
        convolved: torch.Tensor = module.conv(x)
        return convolved

    def _upsample(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        """A block of output needs its input and the next one, because kernels overlap by half."""
        if module.left_pad:
            before = self._context.get(module)
            x = x if before is None else torch.cat([before, x], dim=-1)
            self._context[module] = x[..., -1:]
            if x.shape[-1] == 1:
                return x.new_zeros(x.shape[0], module.conv.out_channels, 0)
        upsampled: torch.Tensor = module(x)
        return upsampled

    def _conv_next(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        mixed = self._convolve(module.dwconv, x).permute(0, 2, 1)
        mixed = module.gamma * module.pwconv2(module.act(module.pwconv1(module.norm(mixed))))
        added: torch.Tensor = x + mixed.permute(0, 2, 1)
        return added


class SpeechSession:
    """One request in the code2wav stage."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._vocoder: StreamingVocoder | None = StreamingVocoder(model)
        self._device = device
        self._frames = 0

    def push(self, source: str, chunks: Sequence[object]) -> Sequence[object]:
        """All frames that have queued up are decoded as one piece."""
        if self._vocoder is None:
            return ()
        with torch.inference_mode():
            frames = torch.cat([to_torch(expect(chunk, CodecFrames).codes) for chunk in chunks])
            wave = self._vocoder.decode(frames.T.to(self._device, torch.long))
        self._frames += len(frames)
        return (AudioOutput(pcm16(wave), SAMPLE_RATE),) if len(wave) else ()

    def finish(self) -> tuple[Sequence[object], object]:
        return (), speech_result(self._frames)

    def close(self) -> None:
        self._vocoder = None


def pcm16(wave: torch.Tensor) -> bytes:
    """float32 in [-1, 1] → signed 16-bit little-endian."""
    samples: bytes = (wave * 32767.0).round().to(torch.int16).cpu().numpy().astype("<i2").tobytes()
    return samples
