"""A model that is shared by ranks makes what the whole one makes: each part is cut as its plan says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from omni_stage.components.attention import Packed, Span
from omni_stage.components.checkpoint import Checkpoint
from omni_stage.components.kv_cache import GrowingStore
from omni_stage.components.tensor_parallel.cut import CannotBeCut, Cut, CutPlan, Share
from omni_stage.models.qwen3_omni.components.text_model import CUTS, PREFIXES, TextModel, TextRows
from omni_stage.models.qwen3_omni.components.weights import Weights, read_config
from omni_stage.tensor_parallel.rank import Rank

# Sums are rounded otherwise when they are made of two; the hidden states are around 1.
TOLERANCE = 2e-5


class Together:
    """The ranks of one process, each in a thread of its own: a sum is made when all have brought their terms."""

    def __init__(self, size: int) -> None:
        self._terms: dict[int, torch.Tensor] = {}
        self._met = threading.Barrier(size, timeout=20)

    def add(self, number: int, term: torch.Tensor) -> None:
        self._terms[number] = term.clone()
        self._met.wait()
        whole = torch.stack([self._terms[n] for n in sorted(self._terms)]).sum(0)
        self._met.wait()
        term.copy_(whole)


class Member:
    """One rank's end, a `RankGroup`."""

    def __init__(self, number: int, together: Together) -> None:
        self._number = number
        self._together = together

    def add(self, term: torch.Tensor) -> None:
        self._together.add(self._number, term)

    def share(self, data: torch.Tensor) -> None:
        raise NotImplementedError

    def settle(self) -> None: ...

    def interrupt(self) -> None: ...


def opened(folder: Path, rank: Rank) -> Weights:
    share = None if rank.alone else Share(CUTS, rank)
    checkpoint = Checkpoint(folder, PREFIXES, share=share)
    return Weights(folder, read_config(folder), checkpoint, torch.device("cpu"), torch.float32, rank)


def rows() -> TextRows:
    """Two sequences of 5 and 3 tokens; tokens 1 and 2 are of a picture."""
    generator = torch.Generator().manual_seed(5)
    visual = torch.zeros(8, dtype=torch.bool)
    visual[1:3] = True
    return TextRows(
        embeds=torch.randn(8, 64, generator=generator),
        positions=torch.cat([torch.arange(5), torch.arange(3)]).float().expand(3, -1),
        visual=visual,
        deepstack=torch.randn(2, 2, 64, generator=generator),
    )


def hidden(weights: Weights, group: Member | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the prompts, and of one more token of the first sequence."""
    store = GrowingStore(weights.config.thinker_config.text_config.num_hidden_layers)
    for sequence in (0, 1):
        store.open(sequence, 8)
    model = TextModel(weights, group)
    with torch.inference_mode():
        prompt = model.forward(rows().tensors(), Packed(store, [Span(0, 5), Span(1, 3)]))
        one = TextRows(rows().embeds[:1], torch.full((3, 1), 5.0))
        return prompt, model.forward(one.tensors(), Packed(store, [Span(0, 1)]))


def all_ranks(folder: Path, size: int) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
    together = Together(size)
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(number: int) -> None:
        made[number] = hidden(opened(folder, Rank(number, size)), Member(number, together))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [made[number] for number in range(size)]


def test_two_ranks_make_what_one_makes(tiny_qwen: Path) -> None:
    whole = hidden(opened(tiny_qwen, Rank()), None)
    for made in all_ranks(tiny_qwen, 2):
        for mine, theirs in zip(made, whole, strict=True):
            assert mine.shape == theirs.shape
            assert (mine - theirs).abs().max() < TOLERANCE


def test_a_rank_reads_its_own_part_and_no_more(tiny_qwen: Path) -> None:
    whole, first, second = (opened(tiny_qwen, rank).checkpoint.tensors for rank in (Rank(), Rank(0, 2), Rank(1, 2)))
    layer = "thinker.model.layers.1"
    for name in (f"{layer}.self_attn.q_proj.weight", f"{layer}.self_attn.k_proj.weight"):
        assert torch.equal(torch.cat([first[name], second[name]]), whole[name])
    for name in (f"{layer}.self_attn.o_proj.weight",):
        assert torch.equal(torch.cat([first[name], second[name]], dim=1), whole[name])
    down = f"{layer}.mlp.experts.down_proj"
    assert torch.equal(torch.cat([first[down], second[down]], dim=2), whole[down])
    gates, ups = zip(
        *[part[f"{layer}.mlp.experts.gate_up_proj"].chunk(2, dim=1) for part in (first, second)], strict=True
    )
    assert torch.equal(torch.cat([*gates, *ups], dim=1), whole[f"{layer}.mlp.experts.gate_up_proj"])
    assert torch.equal(second[f"{layer}.mlp.gate.weight"], whole[f"{layer}.mlp.gate.weight"])
    assert whole.keys() - first.keys() == set()
    assert whole.keys() - second.keys() == {"thinker.model.embed_tokens.weight", "thinker.lm_head.weight"}


def test_numbers_that_the_ranks_do_not_divide_are_named(tiny_qwen: Path) -> None:
    text = read_config(tiny_qwen).thinker_config.text_config
    with pytest.raises(CannotBeCut) as refused:
        CUTS.check(text, 4)
    assert str(refused.value) == "Its tp_size is 4, which does not divide 2 key/value heads."
    with pytest.raises(CannotBeCut, match="does not divide 4 attention heads and 2 key/value heads and 32 features"):
        CUTS.check(text, 3)


def test_a_tensor_that_the_plan_does_not_know_is_refused_by_name(tiny_qwen: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_qwen / "model.safetensors")
    tensors["thinker.model.layers.0.self_attn.o_proj.bias"] = torch.zeros(64)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CannotBeCut, match=r"how its tensor '.*o_proj\.bias' is shared"):
        Checkpoint(tmp_path, PREFIXES, share=Share(CUTS, Rank(0, 2)))


def test_a_tensor_of_an_odd_size_is_refused_by_name() -> None:
    share = Share(CutPlan({r"\.a$": Cut.OUTPUTS}, (), {}), Rank(0, 2))
    with pytest.raises(CannotBeCut, match=r"does not divide the 7 of 'b\.a'"):
        share.slices("b.a", (7, 2))


def test_only_the_modules_that_the_plan_names_are_summed() -> None:
    module = nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()})
    added: list[Any] = []
    CutPlan({}, ("^b$",), {}).join(module, added.append)
    module["a"](torch.ones(1))
    assert not added
    module["b"](torch.ones(1))
    assert len(added) == 1
