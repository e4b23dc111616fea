"""Which part of a model's tensors each rank has. The model says how it is cut, as data; here it is done.

A layer that is cut by its outputs makes some of the features (heads, say), the layer behind it takes just these and
is cut by its inputs: what it makes is one term of a sum over the ranks, and everybody has the whole again.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import nn

from omni_stage.tensor_parallel.rank import Rank


class Cut(Enum):
    OUTPUTS = auto()  # rows of a weight [outputs, inputs]
    INPUTS = auto()  # its columns
    WHOLE = auto()  # every rank has it
    FIRST = auto()  # only rank 0 needs it


class CannotBeCut(ValueError):
    """The sizes of this model, or its tensors, are not such that the ranks can share it. A sentence."""


@dataclass(frozen=True, slots=True)
class CutPlan:
    """How a model is shared.

    `cuts` are patterns of tensors' names, of which each name must match one; `sums` are patterns of the modules whose
    output is a term of a sum; `sizes` are the numbers in the model's config that are divided, with their names for
    people.
    """

    cuts: Mapping[str, Cut]
    sums: Sequence[str]
    sizes: Mapping[str, str]

    def check(self, config: Any, ranks: int) -> None:
        """Raises CannotBeCut with the numbers that so many ranks do not divide."""
        odd = [f"{getattr(config, n)} {said}" for n, said in self.sizes.items() if getattr(config, n) % ranks]
        if odd:
            raise CannotBeCut(f"Its tp_size is {ranks}, which does not divide {' and '.join(odd)}.")

    def narrowed(self, config: Any, ranks: int) -> Any:
        """The config of a model that is one rank's part. Raises CannotBeCut."""
        self.check(config, ranks)
        narrow = copy.deepcopy(config)
        for name in self.sizes:
            setattr(narrow, name, getattr(config, name) // ranks)
        return narrow

    def cut_of(self, name: str) -> Cut:
        """Raises CannotBeCut for a tensor that the plan does not know."""
        for pattern, cut in self.cuts.items():
            if re.search(pattern, name):
                return cut
        raise CannotBeCut(f"Nobody has said how its tensor '{name}' is shared by several ranks.")

    def join(self, module: nn.Module, add: Callable[[torch.Tensor], None]) -> None:
        """Has `add`, which makes a rank's term the sum of all, follow every module whose output is one."""
        for name, part in module.named_modules():
            if any(re.search(pattern, name) for pattern in self.sums):
                part.register_forward_hook(_summed(add))


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of the tensors of a checkpoint."""

    plan: CutPlan
    rank: Rank

    def wants(self, name: str) -> bool:
        return self.rank.leads or self.plan.cut_of(name) is not Cut.FIRST

    def slices(self, name: str, shape: Sequence[int]) -> tuple[slice, ...] | None:
        """What is read of the tensor; None for all of it. Raises CannotBeCut."""
        cut = self.plan.cut_of(name)
        if cut is Cut.OUTPUTS:
            return (self._part(name, shape[0]),)
        if cut is Cut.INPUTS:
            return (slice(None), self._part(name, shape[1]))
        return None

    def _part(self, name: str, size: int) -> slice:
        part, rest = divmod(size, self.rank.size)
        if rest:
            raise CannotBeCut(f"Its tp_size is {self.rank.size}, which does not divide the {size} of '{name}'.")
        return slice(self.rank.number * part, (self.rank.number + 1) * part)


def _summed(add: Callable[[torch.Tensor], None]) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    def hook(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        whole = output.contiguous()
        add(whole)
        return whole

    return hook
