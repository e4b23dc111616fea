"""The model folder, opened for one stage: its config, its own tensors, where and how it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3OmniMoeConfig

from omni_stage.components.checkpoint import Checkpoint
from omni_stage.components.tensor_parallel.cut import CutPlan, Share
from omni_stage.models.qwen3_omni.config import check_config
from omni_stage.program import StageContext
from omni_stage.tensor_parallel.rank import Rank


@dataclass(frozen=True, slots=True)
class Weights:
    """All that the stages' modules are made from."""

    folder: Path
    config: Any
    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    rank: Rank = field(default_factory=Rank)


def open_weights(context: StageContext, *prefixes: str, plan: CutPlan | None = None) -> Weights:
    """Loads this stage's tensors, those under the prefixes, and no others; with a plan, this rank's part of them."""
    folder = open_folder(context)
    config = read_config(folder)
    device = device_of(context)
    dtype = _dtype(context.dtype, device)
    share = None if plan is None else Share(plan, context.rank)
    checkpoint = Checkpoint(folder, prefixes, device=device, dtype=dtype, progress=context.progress, share=share)
    return Weights(folder, config, checkpoint, device, dtype, context.rank)


def read_config(folder: Path) -> Any:
    """Raises ValueError when it is not of such a model."""
    check_config(folder)
    return Qwen3OmniMoeConfig.from_pretrained(folder)


def open_folder(context: StageContext) -> Path:
    """The model folder, for a stage that is about to compute: torch's threads are set, for the whole process."""
    torch.set_num_threads(context.threads)
    if context.model is None:
        raise ValueError(f"Stage '{context.stage.name}' of {context.pipeline.name} needs a model folder.")
    return context.model


def device_of(context: StageContext) -> torch.device:
    """Where this process computes: ranks have GPUs one after another, from the one that the settings name on. Raises
    ValueError when there are not so many."""
    name, rank = context.device, context.rank
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if rank.alone or device.type != "cuda":
        return device
    first, there = device.index or 0, torch.cuda.device_count()
    if first + rank.size > there:
        raise ValueError(f"Its tp_size is {rank.size}, from cuda:{first} on, and it sees {there} GPUs.")
    return torch.device("cuda", first + rank.number)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name in ("", "auto"):
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"'{name}' is no element type; bfloat16 and float32 are, for example")
    return dtype
