"""Blocks of prompts in a real store: who gets them, that the numbers are the same, that memory is bounded."""

from __future__ import annotations

import pytest
import torch

from omni_stage.components.kv_cache import GrowingStore
from omni_stage.components.prefix_cache import BLOCK_TOKENS, Passage, PrefixCache

LAYERS, HEADS, DIM = 2, 2, 4
BLOCK = 2 * LAYERS * HEADS * DIM * 4 * BLOCK_TOKENS  # bytes
N = BLOCK_TOKENS


class Kept:
    """A cache over its store; sequence n has numbers of its own, drawn from n."""

    def __init__(self, budget: int = 100 * BLOCK) -> None:
        self.store = GrowingStore(LAYERS)
        self.cache = PrefixCache(self.store, budget)
        self.budget = budget

    def run(self, sequence: int, tokens: int, reused: int = 0) -> torch.Tensor:
        """What a model would append behind what is reused: [layers, heads, tokens, dim]."""
        made = torch.randn(LAYERS, HEADS, tokens - reused, DIM, generator=torch.Generator().manual_seed(sequence))
        for layer in range(LAYERS):
            self.store.append(sequence, layer, made[layer], -made[layer])
        return made

    def read(self, sequence: int, prompt: Passage, *rows: torch.Tensor | None) -> torch.Tensor:
        """A new prompt from its first token to its end."""
        self.store.open(sequence, expected=4)
        made = self.run(sequence, len(prompt.ids))
        self.cache.keep(sequence, prompt, rows or [None] * (len(prompt.ids) // N))
        self.store.free(sequence)
        assert self.cache.size <= self.budget
        return made

    def reused(self, sequence: int, prompt: Passage) -> int:
        self.store.open(sequence, expected=4)
        tokens = self.cache.reuse(sequence, prompt).tokens
        assert self.store.length(sequence) == tokens
        self.store.free(sequence)
        return tokens


def passage(tokens: int, *, seed: int = 0, spliced: tuple[bytes, ...] = (), shift: float = 0) -> Passage:
    ids = torch.randint(0, 1000, (tokens,), generator=torch.Generator().manual_seed(seed))
    return Passage(ids, (torch.arange(tokens).float() + shift).expand(3, -1), spliced)


def test_whole_blocks_are_reused_and_never_all_of_a_prompt() -> None:
    kept = Kept()
    kept.read(0, passage(3 * N + 5))
    assert kept.reused(1, passage(3 * N + 5)) == 3 * N
    exact = passage(3 * N)
    kept.read(2, exact)
    assert kept.reused(3, exact) == 2 * N  # its last token has to be computed
    assert kept.reused(4, passage(N)) == 0
    assert kept.reused(5, passage(0)) == 0


def test_what_is_loaded_is_what_was_computed() -> None:
    kept = Kept()
    made = kept.read(0, passage(2 * N + 1))
    kept.store.open(1, expected=4)
    kept.cache.reuse(1, passage(2 * N + 1))
    after = kept.run(1, 2 * N + 1, reused=2 * N)
    for layer in range(LAYERS):
        new = torch.zeros(HEADS, 1, DIM)
        keys, values = kept.store.append(1, layer, new, new)
        expected = torch.cat([made[layer][:, : 2 * N], after[layer], new], dim=1)
        assert torch.equal(keys, expected)
        assert torch.equal(values[:, :-1], -expected[:, :-1])


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        pytest.param(passage(4 * N, spliced=(b"", b"one")), 3 * N, id="nothing"),
        pytest.param(passage(4 * N, spliced=(b"", b"two")), N, id="another picture"),
        pytest.param(passage(4 * N), N, id="no picture"),
        pytest.param(passage(4 * N, spliced=(b"", b"one", b"two")), 2 * N, id="one more picture"),
        pytest.param(passage(4 * N, spliced=(b"", b"one"), shift=1), 0, id="other positions"),
        pytest.param(passage(4 * N, seed=1, spliced=(b"", b"one")), 0, id="other tokens"),
    ],
)
def test_a_block_is_reused_only_where_all_is_the_same(other: Passage, shared: int) -> None:
    kept = Kept()
    kept.read(0, passage(4 * N, spliced=(b"", b"one")))
    assert kept.reused(1, other) == shared


def test_the_end_of_a_conversation_is_kept_behind_its_prompt() -> None:
    kept = Kept()
    whole = passage(3 * N)
    prompt = Passage(whole.ids[: N + 7], whole.positions[:, : N + 7])
    kept.store.open(0, expected=4)
    kept.run(0, 3 * N)
    kept.cache.keep(0, prompt, [None])
    kept.cache.keep(0, whole, [None, None])
    assert kept.reused(1, passage(3 * N + 1)) == 3 * N


def test_rows_go_with_their_block_and_count_as_its_bytes() -> None:
    kept = Kept()
    rows = torch.arange(10.0).reshape(5, 2)
    kept.read(0, passage(3 * N), None, rows[1:3], None)
    assert kept.cache.size == 3 * BLOCK + 16
    kept.store.open(1, expected=4)
    (found,) = kept.cache.reuse(1, passage(3 * N + 1)).rows
    assert torch.equal(found, rows[1:3])
    assert found.untyped_storage().nbytes() == 16  # and not all that was made with it
    kept.cache.clear()
    assert kept.cache.size == kept.store.kept == 0
    assert kept.cache.reuse(1, passage(3 * N + 1)).rows == []


def test_old_conversations_make_room_and_their_memory_is_given_back() -> None:
    kept = Kept(budget=4 * BLOCK)
    for seed in range(20):
        kept.read(seed, passage(3 * N, seed=seed))
        assert kept.store.kept == kept.cache.size == min(seed + 1, 1) * 3 * BLOCK + (BLOCK if seed else 0)
        assert kept.reused(100 + seed, passage(3 * N + 1, seed=seed)) == 3 * N
    assert kept.reused(200, passage(3 * N + 1, seed=18)) == N
    assert kept.reused(201, passage(3 * N + 1, seed=0)) == 0


def test_a_prompt_larger_than_the_budget_keeps_its_beginning() -> None:
    kept = Kept(budget=2 * BLOCK + 1)
    kept.read(0, passage(5 * N))
    assert kept.reused(1, passage(5 * N)) == 2 * N
    tiny = Kept(budget=BLOCK - 1)
    tiny.read(0, passage(5 * N))
    assert tiny.store.kept == 0


class Full(GrowingStore):
    """A store on a device that has room for so many blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__(LAYERS)
        self._left = blocks

    def keep(self, sequence: int, block: int, start: int, end: int) -> None:
        if not self._left:
            raise torch.OutOfMemoryError("the device is full")
        self._left -= 1
        super().keep(sequence, block, start, end)


def test_a_full_device_costs_what_is_kept_and_no_request() -> None:
    store = Full(blocks=4)
    cache = PrefixCache(store, 100 * BLOCK)
    kept = Kept()
    kept.store, kept.cache = store, cache
    kept.read(0, passage(3 * N))
    kept.read(1, passage(3 * N, seed=1))
    assert store.kept == cache.size == 0
    assert kept.reused(2, passage(3 * N + 1)) == 0


def test_another_process_has_other_keys() -> None:
    one, other = Kept().cache, Kept().cache
    assert one.digest((b"a picture",)) == one.digest((b"a picture",)) != other.digest((b"a picture",))
