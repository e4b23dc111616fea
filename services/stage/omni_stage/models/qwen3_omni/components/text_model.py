"""The thinker's text model, or one rank's part of it, over a packed row; and how it is cut into such parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_stage.components.attention import PACKED, Packed
from omni_stage.components.kv_cache import GrowingStore, KvStore
from omni_stage.components.tensor_parallel.cut import Cut, CutPlan
from omni_stage.components.tensor_parallel.following import follow
from omni_stage.components.tensor_parallel.group import RankGroup, meet
from omni_stage.components.tensor_parallel.leader import Forward, Leader
from omni_stage.components.tensor_parallel.rows import Rows
from omni_stage.models.qwen3_omni.components.weights import (
    Weights,
    device_of,
    open_folder,
    open_weights,
    read_config,
)
from omni_stage.program import StageContext
from omni_stage.tensor_parallel.rank import Following

PREFIXES = ("thinker.model.", "thinker.lm_head.")

# Followers are given embeddings and give no tokens, so they need neither the table of embeddings nor the head.
CUTS = CutPlan(
    cuts={
        r"\.self_attn\.[qkv]_proj\.weight$": Cut.OUTPUTS,
        r"\.self_attn\.o_proj\.weight$": Cut.INPUTS,
        r"\.mlp\.(experts\.\d+\.)?(gate|up)_proj\.weight$": Cut.OUTPUTS,
        r"\.mlp\.(experts\.\d+\.)?down_proj\.weight$": Cut.INPUTS,
        r"norm\.weight$|\.mlp\.gate\.weight$": Cut.WHOLE,
        r"\.embed_tokens\.weight$|^thinker\.lm_head\.weight$": Cut.FIRST,
    },
    sums=(r"\.self_attn\.o_proj$", r"\.mlp\.experts$", r"\.mlp\.down_proj$"),
    sizes={
        "num_attention_heads": "attention heads",
        "num_key_value_heads": "key/value heads",
        "moe_intermediate_size": "features inside an expert",
        "intermediate_size": "features inside a dense layer",
    },
)


@dataclass(frozen=True, slots=True)
class TextRows:
    """What goes into a step: embeddings [n, H], positions [3, n]; of pictures and videos, where they are in the row [n]
    and what is added to them in the first layers [d, v, H]."""

    embeds: torch.Tensor
    positions: torch.Tensor
    visual: torch.Tensor | None = None
    deepstack: torch.Tensor | None = None

    def tensors(self) -> Rows:
        return (self.embeds, self.positions, self.visual, self.deepstack)


class TextModel:
    """`module` is what this process has of it. `forward`, of all ranks together, runs a row: the hidden states of all
    its tokens, [n, H], whole."""

    def __init__(self, weights: Weights, group: RankGroup | None = None, leader: Leader | None = None) -> None:
        text = weights.config.thinker_config.text_config
        ours = CUTS.narrowed(text, weights.rank.size)
        # Of the whole model: a config that does not say it would have it follow from the heads, which are fewer here.
        ours.head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads

        def make() -> nn.Module:
            made: Any = modeling.Qwen3OmniMoeThinkerTextModel._from_config(
                ours, dtype=weights.dtype, attn_implementation=PACKED
            )
            if not weights.rank.leads:
                made.embed_tokens = nn.Identity()
            return made  # type: ignore[no-any-return]

        self.module: Any = weights.checkpoint.module(make, PREFIXES[0])
        if group is not None:
            CUTS.join(self.module, group.add)
        self.forward: Forward = self._run if leader is None else leader.lead(self._run)

    def _run(self, rows: Rows, packed: Packed) -> torch.Tensor:
        embeds, positions, visual, deepstack = rows
        if embeds is None or positions is None:
            raise ValueError("a row without embeddings or positions")
        output = self.module(
            inputs_embeds=embeds[None],
            position_ids=positions[:, None],
            use_cache=False,  # the store has the caches
            packed=packed,
            visual_pos_masks=None if visual is None else visual[None],
            deepstack_visual_embeds=None if deepstack is None else list(deepstack),
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden


@dataclass(frozen=True, slots=True)
class Opened:
    """All that a thinker's runner computes with."""

    weights: Weights
    store: KvStore
    text: TextModel


def open_text_model(context: StageContext) -> Opened:
    """The model, or rank 0's part of it once all ranks have met. Raises ValueError with a sentence."""
    if context.leading is None:
        weights = open_weights(context, *PREFIXES)
        return Opened(weights, _store(weights), TextModel(weights))
    group = _meet(context)
    weights = open_weights(context, *PREFIXES, plan=CUTS)
    leader = Leader(context.leading, group, _store(weights))
    return Opened(weights, leader.store, TextModel(weights, group, leader))


def follow_text_model(context: StageContext, following: Following) -> Callable[[], None]:
    """Another rank's part of it."""
    group = _meet(context)
    weights = open_weights(context, *PREFIXES, plan=CUTS)
    model = TextModel(weights, group)
    return lambda: follow(following, group, _store(weights), model.forward, weights.device)


def _meet(context: StageContext) -> RankGroup:
    """Before weights are read, which takes longer than to find that they cannot be shared."""
    config = read_config(open_folder(context))
    CUTS.check(config.thinker_config.text_config, context.rank.size)
    return meet(context.rank, device_of(context))


def _store(weights: Weights) -> GrowingStore:
    return GrowingStore(weights.config.thinker_config.text_config.num_hidden_layers)
