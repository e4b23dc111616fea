"""On a GPU new tokens attend to kept ones as in a whole prompt, and need no memory for all scores at once."""

from __future__ import annotations

import pytest
import torch
from tests.unit.stage.test_kv_cache import Layer
from torch.nn.functional import scaled_dot_product_attention

from omni_stage.components.attention import Packed, Span, packed_attention
from omni_stage.components.kv_cache import GrowingStore

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

HEADS, KV_HEADS, DIM = 32, 4, 128  # of the thinker of 30 billion parameters


def test_many_new_tokens_behind_many_kept_ones() -> None:
    kept, new = 12_000, 8_000
    generator = torch.Generator("cuda").manual_seed(1)
    query, key, value = (
        torch.randn(1, heads, kept + new, DIM, generator=generator, device="cuda", dtype=torch.bfloat16)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    whole = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    store = GrowingStore(layers=1)
    store.open(0, expected=kept + new)
    store.append(0, 0, key[0, :, :kept], value[0, :, :kept])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    parts = (query[:, :, kept:], key[:, :, kept:], value[:, :, kept:])
    made, _ = packed_attention(Layer(), *parts, None, packed=Packed(store, [Span(0, new)]))
    torch.testing.assert_close(made[0], whole[0, :, kept:].transpose(0, 1), atol=2e-2, rtol=2e-2)
    assert torch.cuda.max_memory_allocated() - before < 1 << 30
