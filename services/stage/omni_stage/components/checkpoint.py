"""Loading one stage's own tensors from a checkpoint in the published layout (safetensors, one file or sharded).

Modules are made on the meta device, so that nothing is initialised only to be overwritten; tensors are read straight
to their device. The experts of a layer lie on disk one by one and in memory fused, as transformers' modules want them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from omni_stage.components.tensor_parallel.cut import Share
from omni_stage.damaged import reading
from omni_stage.program import Progress

_EXPERT = re.compile(r"(?P<layer>.*\.experts)\.(?P<index>\d+)\.(?P<part>gate|up|down)_proj\.weight$")
M = TypeVar("M", bound=nn.Module)


class CheckpointError(ValueError):
    """The folder does not hold what the stage needs: a sentence."""


class Checkpoint:
    """The tensors under some name prefixes of one checkpoint, on a device, in a floating-point type."""

    def __init__(
        self,
        folder: Path,
        prefixes: tuple[str, ...],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        progress: Progress | None = None,
        share: Share | None = None,
    ) -> None:
        """With `share`, only this rank's part of them is read."""
        self._folder = folder
        self._share = share
        self._device = torch.device(device)
        self._dtype = dtype
        self._files = _files(folder, prefixes)
        if share is not None:
            self._files = {name: file for name, file in self._files.items() if share.wants(name)}
        if not self._files:
            raise CheckpointError(f"The weights in {folder} have no tensors under {', '.join(prefixes)}.")
        self._experts = _count_experts(self._files)
        self.tensors: dict[str, torch.Tensor] = {}
        total = len(self._files)
        for done, (name, tensor) in enumerate(self._read(), start=1):
            self._take(name, tensor)
            if progress is not None:
                progress(done, total)

    def module(self, make: Callable[[], M], prefix: str) -> M:
        """A module with exactly the tensors under this prefix. Raises CheckpointError when one is missing or left."""
        with torch.device("meta"):
            module = make()
        mine = {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}
        missing, unexpected = module.load_state_dict(mine, strict=False, assign=True)
        if missing or unexpected:
            raise CheckpointError(
                f"In the weights in {self._folder}, under '{prefix}', tensors are missing {missing[:3]} or unknown "
                f"{unexpected[:3]}."
            )
        rebuild_buffers(module, self._device)
        return module.requires_grad_(False).eval()

    def _read(self) -> Iterator[tuple[str, torch.Tensor]]:
        for file in sorted(set(self._files.values())):
            path = self._folder / file
            with reading(path, SafetensorError), safe_open(path, "pt", device=str(self._device)) as opened:
                for name in sorted(n for n, f in self._files.items() if f == file):
                    tensor = self._part(opened, name)
                    yield name, tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _part(self, opened: Any, name: str) -> torch.Tensor:
        tensor: torch.Tensor
        if self._share is not None:
            whole = opened.get_slice(name)
            if (slices := self._share.slices(name, whole.get_shape())) is not None:
                tensor = whole[slices]
                return tensor
        tensor = opened.get_tensor(name)
        return tensor

    def _take(self, name: str, tensor: torch.Tensor) -> None:
        match = _EXPERT.match(name)
        if match is None:
            self.tensors[name] = tensor
            return
        layer, index, part = match["layer"], int(match["index"]), match["part"]
        rows, columns = tensor.shape
        if part == "down":
            self._fused(f"{layer}.down_proj", layer, (rows, columns))[index] = tensor
        else:
            gate_up = self._fused(f"{layer}.gate_up_proj", layer, (2 * rows, columns))
            (gate_up[index, :rows] if part == "gate" else gate_up[index, rows:]).copy_(tensor)

    def _fused(self, name: str, layer: str, shape: tuple[int, int]) -> torch.Tensor:
        if name not in self.tensors:
            self.tensors[name] = torch.empty(self._experts[layer], *shape, dtype=self._dtype, device=self._device)
        return self.tensors[name]


def rebuild_buffers(module: nn.Module, device: torch.device) -> None:
    """Computes buffers that no checkpoint holds (rotary frequencies, sinusoids, offsets): they are still on meta.

    Modules of transformers know how to fill their own in `_init_weights`; parameters are marked so that it leaves
    them alone. This is what `from_pretrained` does.
    """
    for parameter in module.parameters():
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    for owner in list(module.modules()):
        empty = {n: b for n, b in owner.named_buffers(recurse=False) if b.device.type == "meta"}
        for name, buffer in empty.items():
            owner.register_buffer(name, torch.empty_like(buffer, device=device), persistent=False)
        if empty:
            _initialiser(module, owner)(owner)


def _initialiser(root: nn.Module, owner: nn.Module) -> Callable[[nn.Module], Any]:
    """`_init_weights` of the nearest model around the module."""
    around = [m for m in root.modules() if isinstance(m, PreTrainedModel) and any(i is owner for i in m.modules())]
    if not around:
        raise CheckpointError(f"nobody can fill the buffers of {type(owner).__name__}")
    initialise: Callable[[nn.Module], Any] = around[-1]._init_weights
    return initialise


def _files(folder: Path, prefixes: tuple[str, ...]) -> Mapping[str, str]:
    """Tensor name → file, of the tensors wanted."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        with reading(index, ValueError, KeyError, TypeError, AttributeError):
            names: Mapping[str, str] = dict(json.loads(index.read_bytes())["weight_map"].items())
    elif (whole := folder / "model.safetensors").is_file():
        with reading(whole, SafetensorError), safe_open(whole, "pt") as opened:
            names = dict.fromkeys(opened.keys(), "model.safetensors")
    else:
        raise CheckpointError(f"{folder} has neither model.safetensors nor its index.")
    return {name: file for name, file in names.items() if name.startswith(prefixes)}


def _count_experts(names: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for match in filter(None, map(_EXPERT.match, names)):
        counts[match["layer"]] = max(counts.get(match["layer"], 0), int(match["index"]) + 1)
    return counts
