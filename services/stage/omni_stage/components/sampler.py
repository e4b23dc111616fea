"""Choosing the next token, request by request, with the rules and in the order of transformers' `generate`:
repetition penalty → suppressed tokens → temperature → top-k → top-p → one draw."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import torch

from omni_common.request import Sampling

# Dividing by less overflows, and far above it the likeliest token is sure to be chosen already.
_COLDEST = 1e-5


class Sampler:
    """One request's choices in one stage: its settings, its own random numbers, the tokens it has seen.

    Two samplers with the same seed choose alike whatever else is in their batches.
    """

    def __init__(
        self,
        settings: Sampling,
        *,
        device: torch.device | str = "cpu",
        seen: Iterable[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        asked = 1.0 if settings.temperature is None else settings.temperature
        self.temperature = asked if asked >= _COLDEST else 0.0
        self.top_k = settings.top_k or 0
        self.top_p = 1.0 if settings.top_p is None else settings.top_p
        self.penalty = settings.repetition_penalty or 1.0
        self.seen = set(seen) if self.penalty != 1.0 else set()
        self.generator = generator or torch.Generator(device)
        if generator is None:
            self.generator.manual_seed(secrets.randbits(63) if settings.seed is None else settings.seed)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def note(self, token: int) -> None:
        """The token was generated; the repetition penalty counts it from now on."""
        if self.penalty != 1.0:
            self.seen.add(token)


def sample(logits: torch.Tensor, samplers: Sequence[Sampler], *, suppress: torch.Tensor | None = None) -> torch.Tensor:
    """One token per row of [n, vocabulary]; rows with equal settings are warped together."""
    logits = logits.to(torch.float32, copy=True)
    for row, sampler in enumerate(samplers):
        if sampler.seen:
            _penalise(logits[row], sampler)
    if suppress is not None:
        logits[:, suppress] = float("-inf")
    chosen = torch.empty(len(samplers), dtype=torch.long, device=logits.device)
    groups: dict[tuple[float, int, float], list[int]] = {}
    for row, sampler in enumerate(samplers):
        groups.setdefault((sampler.temperature, sampler.top_k, sampler.top_p), []).append(row)
    for (temperature, top_k, top_p), rows in groups.items():
        if temperature == 0:
            chosen[rows] = logits[rows].argmax(-1)
            continue
        probabilities = _warp(logits[rows], temperature, top_k, top_p).softmax(-1)
        for row, weights in zip(rows, probabilities, strict=True):
            chosen[row] = torch.multinomial(weights, 1, generator=samplers[row].generator)[0]
    return chosen


def _penalise(logits: torch.Tensor, sampler: Sampler) -> None:
    seen = torch.tensor(sorted(sampler.seen), device=logits.device)
    scores = logits[seen]
    logits[seen] = torch.where(scores < 0, scores * sampler.penalty, scores / sampler.penalty)


def _warp(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    logits = logits / temperature
    if top_k:
        least = torch.topk(logits, min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1.0:
        ascending, order = torch.sort(logits, descending=False)
        unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        unlikely[:, -1] = False  # the likeliest token always stays
        logits = logits.masked_fill(unlikely.scatter(1, order, unlikely), float("-inf"))
    return logits
