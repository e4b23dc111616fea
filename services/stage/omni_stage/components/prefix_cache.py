"""Keys and values of prompts that outlive their requests: a request whose prompt begins like an earlier one computes
only the rest.

`core.prefix_index` decides which blocks there are, the store has their memory. With a block goes what else of its
tokens the model needs and would not compute again: its `rows`. All calls come from the scheduler's one thread, and
what is found is loaded, that is copied, before the next call: no block has to be held for anyone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from omni_stage.components.device_memory import bytes_of
from omni_stage.components.kv_cache import KvStore
from omni_stage.core.prefix_index import Change, Contents, Key, PrefixIndex, chain_keys, digest

# A prompt shares whole blocks only, and each is copied by itself: shorter ones would cost more copies, longer ones more
# tokens computed twice.
BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Passage:
    """What the keys and values of some tokens depend on: their ids [n], their positions [axes, n], both on the CPU, and
    for each block a digest of what was put in the place of its tokens' embeddings, empty where nothing was. Blocks
    beyond these digests have nothing either."""

    ids: torch.Tensor
    positions: torch.Tensor
    spliced: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Reused:
    """The first `tokens` of a prompt, which are in its sequence already, and the rows kept with them."""

    tokens: int
    rows: Sequence[torch.Tensor]


class PrefixCache:
    """Blocks of `BLOCK_TOKENS`, with their rows `budget` bytes at most."""

    def __init__(self, store: KvStore, budget: int) -> None:
        self._store = store
        self._index = PrefixIndex(budget)
        self._secret = secrets.token_bytes(32)
        self._rows: dict[int, torch.Tensor] = {}

    @property
    def size(self) -> int:
        """Bytes of the blocks and of their rows."""
        return self._index.size

    def digest(self, contents: Contents) -> bytes:
        """Of what was put in the place of a block's embeddings."""
        return digest(contents, self._secret)

    def reuse(self, sequence: int, prompt: Passage) -> Reused:
        """Loads the longest beginning of the prompt that is kept into the new sequence; never all of the prompt, whose
        last token makes the first new one."""
        usable = (len(prompt.ids) - 1) // BLOCK_TOKENS
        blocks = self._index.find(self._chain(prompt)[:usable])
        for block in blocks:
            self._store.load(sequence, block)
        return Reused(len(blocks) * BLOCK_TOKENS, [self._rows[block] for block in blocks if block in self._rows])

    def keep(self, sequence: int, passage: Passage, rows: Sequence[torch.Tensor | None]) -> None:
        """Keeps the last `len(rows)` whole blocks of the sequence's passage, each with its rows, as far as there is
        room. Those before them are kept already, or nothing is."""
        chain = self._chain(passage)
        one = self._store.token_size * BLOCK_TOKENS
        change = self._index.add(chain, [one + (0 if kept is None else kept.nbytes) for kept in rows])
        try:
            self._carry_out(sequence, change, dict(enumerate(rows, len(chain) - len(rows))))
        except torch.OutOfMemoryError:
            self.clear()  # the device is full, and the requests need it more
        except BaseException:
            self.clear()  # or the index would know blocks that do not exist
            raise

    def clear(self) -> None:
        for block in self._index.clear():
            self._drop(block)

    def _carry_out(self, sequence: int, change: Change, rows: dict[int, torch.Tensor | None]) -> None:
        for block in change.dropped:
            self._drop(block)
        for place, block in change.made:
            start = place * BLOCK_TOKENS
            self._store.keep(sequence, block, start, start + BLOCK_TOKENS)
            if (kept := rows[place]) is not None:
                self._rows[block] = kept.clone()  # or it would keep all rows of its step alive

    def _drop(self, block: int) -> None:
        self._store.drop(block)
        self._rows.pop(block, None)

    def _chain(self, passage: Passage) -> Sequence[Key]:
        blocks = whole_blocks(len(passage.ids))
        ids = _pieces(passage.ids[None], blocks)
        positions = _pieces(passage.positions, blocks)
        spliced = [*passage.spliced[:blocks], *[b""] * (blocks - len(passage.spliced))]
        return chain_keys(zip(ids, positions, spliced, strict=True), self._secret)


def whole_blocks(tokens: int) -> int:
    return tokens // BLOCK_TOKENS


def _pieces(values: torch.Tensor, blocks: int) -> Sequence[memoryview]:
    """Of [axes, n], the bytes of each block."""
    cut = values[:, : blocks * BLOCK_TOKENS].reshape(len(values), blocks, BLOCK_TOKENS)
    return [bytes_of(piece).numpy().data for piece in cut.transpose(0, 1).contiguous()]
