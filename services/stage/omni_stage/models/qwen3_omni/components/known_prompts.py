"""What the thinker need not compute of a prompt, because an earlier one began with it; and what it keeps of each.

The talker hears of media what the accept layer made of them. So these rows are kept with their block, beside the keys
and values; of other tokens it hears embeddings, which are looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omni_stage.components.prefix_cache import BLOCK_TOKENS, Passage, PrefixCache, whole_blocks
from omni_stage.models.qwen3_omni.components.splices import media_of, spliced_digests
from omni_stage.models.qwen3_omni.payload_types import ThinkerInput


@dataclass(frozen=True, slots=True)
class Known:
    """A prompt, of which the first `tokens` are in its sequence already; `rows` [m, H] are what the accept layer made
    of the media among them."""

    prompt: Passage
    tokens: int = 0
    rows: torch.Tensor | None = None


class KnownPrompts:
    """Of one thinker; `config` is the thinker's. Sequences are named as in the store."""

    def __init__(self, prefixes: PrefixCache, config: Any) -> None:
        self._prefixes = prefixes
        self._config = config

    def reuse(self, sequence: int, prompt: ThinkerInput, ids: torch.Tensor, positions: torch.Tensor) -> Known:
        """Fills the new sequence with what is kept of its prompt."""
        spliced = spliced_digests(prompt, ids, self._config, self._prefixes.digest)
        passage = Passage(ids, positions, spliced)
        found = self._prefixes.reuse(sequence, passage)
        return Known(passage, found.tokens, torch.cat([*found.rows]) if found.rows else None)

    def accepted(self, known: Known, embeds: torch.Tensor, computed: torch.Tensor) -> torch.Tensor:
        """The accept layer's rows [n, H] for a whole prompt, of which it made those that were not known. For known text
        there are embeddings instead: nobody asks for these rows."""
        if not known.tokens:
            return computed
        rows = torch.cat([embeds[: known.tokens], computed])
        if known.rows is not None:
            media = media_of(known.prompt.ids[: known.tokens], self._config)
            rows[: known.tokens][media.to(rows.device)] = known.rows
        return rows

    def keep_prompt(self, sequence: int, known: Known, computed: torch.Tensor) -> None:
        """Keeps the whole blocks that have just been computed, with the accept layer's rows of their media."""
        ids = known.prompt.ids
        media = torch.split(media_of(ids[known.tokens :], self._config), BLOCK_TOKENS)
        rows = [
            made[places.to(made.device)] if places.any() else None
            for places, made in zip(media, torch.split(computed, BLOCK_TOKENS), strict=True)
        ]
        new = whole_blocks(len(ids)) - whole_blocks(known.tokens)
        self._prefixes.keep(sequence, known.prompt, rows[:new])

    def keep_answer(self, sequence: int, known: Known, answer: Sequence[int], delta: int) -> None:
        """Keeps the blocks that the answer completes: what the caller says next comes behind them. The answer's last
        token has no keys and values; it was never fed. `delta` is how far its positions are from their index."""
        prompt = known.prompt
        fed = torch.tensor(answer[:-1], dtype=prompt.ids.dtype)
        places = torch.arange(len(prompt.ids), len(prompt.ids) + len(fed), dtype=prompt.positions.dtype) + delta
        whole = Passage(
            ids=torch.cat([prompt.ids, fed]),
            positions=torch.cat([prompt.positions, places.expand(len(prompt.positions), -1)], dim=1),
            spliced=prompt.spliced,
        )
        new = whole_blocks(len(whole.ids)) - whole_blocks(len(prompt.ids))
        self._prefixes.keep(sequence, whole, [None] * new)
