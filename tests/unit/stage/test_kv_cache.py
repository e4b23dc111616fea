"""A packed batch attends as if each sequence were alone, whatever came before."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from omni_stage.components.attention import Span, packed_attention
from omni_stage.components.kv_cache import GrowingCache

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
    caches = [GrowingCache(layers=1, expected=2) for _ in sequences]
    starts = [0, 0, 0]
    made: list[list[torch.Tensor]] = [[], [], []]
    for step in steps:
        pieces, spans = [], []
        for n, count in enumerate(step):
            if count:
                pieces.append([t[:, :, starts[n] : starts[n] + count] for t in sequences[n]])
                spans.append((n, Span(caches[n], count)))
                starts[n] += count
        query, key, value = (torch.cat([p[i] for p in pieces], dim=2) for i in range(3))
        output, _ = packed_attention(Layer(), query, key, value, None, packed=[span for _, span in spans])
        for (n, _), piece in zip(spans, torch.split(output[0], [span.length for _, span in spans]), strict=True):
            made[n].append(piece)
    for sequence, pieces_made in zip(sequences, made, strict=True):
        torch.testing.assert_close(torch.cat(pieces_made), alone(*sequence))


def test_a_cache_keeps_every_token_as_it_grows_and_forgets_them_when_freed() -> None:
    cache = GrowingCache(layers=2, expected=1)
    keys = torch.arange(60.0).reshape(2, 10, 3)
    for layer in range(2):
        for token in range(10):
            held, _ = cache.append(layer, keys[:, token : token + 1], -keys[:, token : token + 1])
            assert torch.equal(held, keys[:, : token + 1])
    assert cache.length == 10
    cache.free()
    assert cache.length == 0


def test_a_cache_knows_what_it_takes_with_its_room_to_grow() -> None:
    cache = GrowingCache(layers=2, expected=4)
    piece = torch.zeros(KV_HEADS, 3, DIM)
    one = 2 * KV_HEADS * DIM * piece.element_size()  # a token's keys and values in a layer
    assert cache.size == 0
    cache.append(0, piece, piece)
    cache.append(1, piece, piece)
    assert cache.size == 2 * 4 * one
    cache.append(0, piece, piece)
    assert cache.size == (8 + 4) * one
    cache.free()
    assert cache.size == 0
