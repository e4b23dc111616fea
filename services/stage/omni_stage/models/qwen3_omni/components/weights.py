"""The model folder, opened for one stage: its config, its own tensors, where and how it computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3OmniMoeConfig

from omni_stage.components.checkpoint import Checkpoint
from omni_stage.program import StageContext


@dataclass(frozen=True, slots=True)
class Weights:
    """All that the stages' modules are made from."""

    folder: Path
    config: Any
    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype


def open_weights(context: StageContext, *prefixes: str) -> Weights:
    """Loads this stage's tensors, those under the prefixes, and no others."""
    folder = open_folder(context)
    device = torch.device(_device(context.device))
    dtype = _dtype(context.dtype, device)
    checkpoint = Checkpoint(folder, prefixes, device=device, dtype=dtype, progress=context.progress)
    return Weights(folder, Qwen3OmniMoeConfig.from_pretrained(folder), checkpoint, device, dtype)


def open_folder(context: StageContext) -> Path:
    """The model folder, for a stage that is about to compute: torch's threads are set, for the whole process."""
    torch.set_num_threads(context.threads)
    if context.model is None:
        raise ValueError(f"Stage '{context.stage.name}' of {context.pipeline.name} needs a model folder.")
    return context.model


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name in ("", "auto"):
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"'{name}' is no element type; bfloat16 and float32 are, for example")
    return dtype
