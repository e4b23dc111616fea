"""A packed batch attends as if each sequence were alone, whatever came before."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from omni_stage.components.attention import Packed, Span, packed_attention
from omni_stage.components.kv_cache import GrowingStore

HEADS, KV_HEADS, DIM = 4, 2, 8


class Layer(nn.Module):
    layer_idx = 0


def tensors(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, HEADS, tokens, DIM, generator=generator)
    key, value = (torch.randn(1, KV_HEADS, tokens, DIM, generator=generator) for _ in range(2))
    return query, key, value


def alone(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The whole sequence at once: [tokens, heads, dim]."""
    attended = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return attended[0].transpose(0, 1)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(5, 3, 7)], id="prompts of different lengths"),
        pytest.param([(5, 3, 0), (1, 1, 7), (1, 1, 1)], id="a prompt joins sequences that go on"),
        pytest.param([(4, 2, 3), (3, 1, 2), (2, 4, 1)], id="prompts in pieces"),
    ],
)
def test_each_sequence_attends_to_itself_only(steps: list[tuple[int, ...]]) -> None:
    sequences = [tensors(sum(step[n] for step in steps), seed=n) for n in range(3)]
    store = GrowingStore(layers=1)
    for n in range(3):
        store.open(n, expected=2)
    starts = [0, 0, 0]
    made: list[list[torch.Tensor]] = [[], [], []]
    for step in steps:
        pieces, spans = [], []
        for n, count in enumerate(step):
            if count:
                pieces.append([t[:, :, starts[n] : starts[n] + count] for t in sequences[n]])
                spans.append((n, Span(n, count)))
                starts[n] += count
        query, key, value = (torch.cat([p[i] for p in pieces], dim=2) for i in range(3))
        output, _ = packed_attention(
            Layer(), query, key, value, None, packed=Packed(store, [span for _, span in spans])
        )
        for (n, _), piece in zip(spans, torch.split(output[0], [span.length for _, span in spans]), strict=True):
            made[n].append(piece)
    for sequence, pieces_made in zip(sequences, made, strict=True):
        torch.testing.assert_close(torch.cat(pieces_made), alone(*sequence))


def test_a_sequence_keeps_every_token_as_it_grows_and_is_gone_when_freed() -> None:
    store = GrowingStore(layers=2)
    store.open(7, expected=1)
    keys = torch.arange(60.0).reshape(2, 10, 3)
    for layer in range(2):
        for token in range(10):
            held, _ = store.append(7, layer, keys[:, token : token + 1], -keys[:, token : token + 1])
            assert torch.equal(held, keys[:, : token + 1])
    assert store.length(7) == 10
    store.free(7)
    store.free(7)
    assert store.size == 0
    store.open(7, expected=1)
    assert store.length(7) == 0


def test_a_store_knows_what_it_takes_with_its_room_to_grow() -> None:
    store = GrowingStore(layers=2)
    store.open(0, expected=4)
    piece = torch.zeros(KV_HEADS, 3, DIM)
    one = 2 * KV_HEADS * DIM * piece.element_size()  # a token's keys and values in a layer
    assert store.size == 0
    store.append(0, 0, piece, piece)
    store.append(0, 1, piece, piece)
    assert store.size == 2 * 4 * one
    store.append(0, 0, piece, piece)
    assert store.size == (8 + 4) * one
    store.free(0)
    assert store.size == 0


def filled(store: GrowingStore, sequence: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Opens a sequence whose keys and values are different in every layer and token: [layers, heads, tokens, dim]."""
    keys = torch.randn(2, KV_HEADS, tokens, DIM, generator=torch.Generator().manual_seed(sequence))
    store.open(sequence, expected=tokens)
    for layer in range(2):
        store.append(sequence, layer, keys[layer], -keys[layer])
    return keys, -keys


def test_a_block_outlives_its_sequence_and_is_loaded_into_others() -> None:
    store = GrowingStore(layers=2)
    keys, values = filled(store, 0, tokens=10)
    store.keep(0, 100, 0, 4)
    store.keep(0, 101, 4, 8)
    store.free(0)
    store.open(1, expected=3)  # less than there will be
    store.load(1, 100)
    store.load(1, 101)
    assert store.length(1) == 8
    new = torch.ones(KV_HEADS, 1, DIM)
    for layer in range(2):
        all_keys, all_values = store.append(1, layer, new, new)
        assert torch.equal(all_keys, torch.cat([keys[layer][:, :8], new], dim=1))
        assert torch.equal(all_values, torch.cat([values[layer][:, :8], new], dim=1))


def test_a_block_is_a_copy_and_is_counted_until_it_is_dropped() -> None:
    store = GrowingStore(layers=2)
    filled(store, 0, tokens=10)
    held = store.size
    store.keep(0, 5, 0, 4)
    assert store.kept == 2 * 2 * KV_HEADS * 4 * DIM * 4
    assert store.size == held
    store.free(0)
    assert (store.size, store.kept) == (0, 2 * 2 * KV_HEADS * 4 * DIM * 4)
    store.drop(5)
    store.drop(5)
    assert store.kept == 0


def test_no_block_is_made_of_tokens_that_are_not_there_nor_twice() -> None:
    store = GrowingStore(layers=2)
    filled(store, 0, tokens=10)
    with pytest.raises(ValueError, match="no tokens 8 to 12"):
        store.keep(0, 1, 8, 12)
    store.keep(0, 1, 0, 4)
    with pytest.raises(ValueError, match="kept already"):
        store.keep(0, 1, 0, 4)
    with pytest.raises(ValueError, match="open already"):
        store.open(0, expected=1)
