"""Makes a tiny Qwen3-Omni with random weights: 0.7 M parameters, 3 MB, in the published layout. For tests and demos.

It has every part of the real model and none of its knowledge. Where sizes are not free, a comment says why.
The tokenizer beside it is a byte-level BPE of 1000 tokens with the model's control tokens, trained on the licence
texts of a Debian system; the words of the roles are single tokens, as the model's code wants them.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration
from transformers import logging as transformers_logging
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

_TOKENIZER = Path(__file__).with_name("tiny_tokenizer")
_WIDTH = 64  # of the thinker
_CODES = 64
_GROUPS = 4
_VOICES = ("chelsie", "ethan", "aiden")
# In the layout of the published preprocessor_config.json; pictures make at most 64 tokens.
_PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "feature_extractor_type": "WhisperFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "min_pixels": 4 * 32 * 32,
    "max_pixels": 64 * 32 * 32,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "feature_size": 128,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 300,
    "padding_value": 0.0,
    "dither": 0.0,
    "return_attention_mask": True,
}
_GENERATION = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8}


def make_tiny(folder: Path, seed: int = 0) -> None:
    """Writes the checkpoint; the same seed makes the same weights."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    for file in _TOKENIZER.iterdir():
        shutil.copyfile(file, folder / file.name)
    config = Qwen3OmniMoeConfig(**_config(AutoTokenizer.from_pretrained(folder)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3OmniMoeForConditionalGeneration(config).eval()
    _draw(model, seed)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(_GENERATION, indent=2) + "\n")


def _config(tokenizer: Any) -> dict[str, Any]:
    def token(text: str) -> int:
        (number,) = tokenizer(text)["input_ids"]
        return int(number)

    media = {f"{kind}_token_id": token(f"<|{kind}_pad|>") for kind in ("audio", "image", "video")}
    starts = {f"{kind}_start_token_id": token(f"<|{kind}_start|>") for kind in ("audio", "vision")}
    roles = {f"{role}_token_id": token(role) for role in ("system", "user", "assistant")}
    thinker = {
        "text_config": _thinker_text(vocabulary=-(-len(tokenizer) // 64) * 64),
        "vision_config": _VISION,
        "audio_config": _AUDIO,
        **media,
        **starts,
        "vision_end_token_id": token("<|vision_end|>"),
        "audio_end_token_id": token("<|audio_end|>"),
        "user_token_id": roles["user_token_id"],
        "position_id_per_seconds": 13,
    }
    return {
        "thinker_config": thinker,
        "talker_config": _talker(media | starts),
        "code2wav_config": _CODE2WAV,
        "enable_audio_output": True,
        "im_start_token_id": token("<|im_start|>"),
        "im_end_token_id": token("<|im_end|>"),
        "tts_pad_token_id": token("<tts_pad>"),
        "tts_bos_token_id": token("<tts_text_bos>"),
        "tts_eos_token_id": token("<tts_text_eod>"),
        **roles,
    }


# The sections of M-RoPE count pairs of frequencies over time, height and width: together half of a head.
_MROPE = {
    "rope_type": "default",
    "rope_theta": 1e6,
    "mrope_section": [4, 2, 2],
    "mrope_interleaved": True,
    "interleaved": True,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e6}
_HEAD = 16
_CONTEXT = 4096


def _thinker_text(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": _WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": _HEAD,
        "max_position_embeddings": _CONTEXT,
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "rope_parameters": _MROPE,
        "tie_word_embeddings": False,
        "pad_token_id": None,
    }


_VISION: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": _WIDTH,
    "num_position_embeddings": 256,
    "deepstack_visual_indexes": [0, 1],
}
_AUDIO: dict[str, Any] = {
    "num_mel_bins": 128,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "d_model": 32,
    "max_source_positions": 1500,
    "n_window": 50,
    "n_window_infer": 800,
    "conv_chunksize": 500,
    "downsample_hidden_size": 8,
    "output_dim": _WIDTH,
}
_CODE2WAV: dict[str, Any] = {
    "codebook_size": _CODES,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_quantizers": _GROUPS,
    "sliding_window": 8,
    "upsample_rates": [8, 5, 4, 3],  # the real rates, so that time stays real: 1920 samples a frame
    "upsampling_ratios": [2, 2],
    "decoder_dim": 64,
    "max_position_embeddings": 8000,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "layer_scale_initial_scale": 0.5,
}


def _talker(tokens: dict[str, int]) -> dict[str, Any]:
    text = {
        # The model's code takes the last 1024 ids for special ones, whatever the codebook.
        "vocab_size": _CODES + 1024,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": _HEAD,
        "max_position_embeddings": _CONTEXT,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": _MROPE,
    }
    predictor = {
        "vocab_size": _CODES,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": _HEAD,
        "num_code_groups": _GROUPS,
        "max_position_embeddings": 64,
        "rope_parameters": _ROPE,
    }
    special = _CODES + 100
    return {
        "text_config": text,
        "code_predictor_config": predictor,
        "num_code_groups": _GROUPS,
        "thinker_hidden_size": _WIDTH,
        "accept_hidden_layer": 3,  # above the deepstack layers, whose hidden states are recorded before the addition
        "codec_pad_id": special,
        "codec_bos_id": special + 1,
        "codec_eos_token_id": special + 2,
        "codec_nothink_id": special + 7,
        "codec_think_bos_id": special + 8,
        "codec_think_eos_id": special + 9,
        "speaker_id": {name: _CODES + 253 + number for number, name in enumerate(_VOICES)},
        **tokens,
        # Read by the talker's position encoding, though its config class does not declare them.
        "spatial_merge_size": 2,
        "position_id_per_seconds": 13,
    }


def _draw(model: torch.nn.Module, seed: int) -> None:
    """Random weights that answer differently to different input: at the usual 0.02 the answer is one token for ever."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() >= 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * _spread(name, weight))
            elif name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
            elif name.endswith("gamma"):
                weight.fill_(0.3)
        last = model.get_submodule("code2wav.decoder")[-1]  # type: ignore[index]
        if not isinstance(last, modeling.Qwen3OmniMoeCausalConvNet):
            raise TypeError("the vocoder does not end in a convolution")
        last.conv.weight.mul_(0.02)  # keeps the waveform inside (-1, 1), or clipping would hide differences


def _spread(name: str, weight: torch.Tensor) -> float:
    fan_in = float(weight[0].numel())
    if any(part in name for part in ("embed_tokens", "pos_embed", "codec_embedding", "code_embedding")):
        return 1.0
    heads = "lm_head" in name or "codec_head" in name
    return (3.0 if heads else 1.0) / math.sqrt(fan_in)
