"""Tokens are chosen as transformers' generate chooses them, and each request's by its own luck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from omni_common.request import Sampling
from omni_stage.components.sampler import Sampler, sample

VOCABULARY = 200


def logits_of(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def draw(settings: Sampling, steps: int, company: Sequence[Sampler] = ()) -> list[int]:
    """A row of tokens, each chosen beside the same step of the company."""
    sampler = Sampler(settings)
    tokens = []
    for step in range(steps):
        logits = torch.cat([logits_of(step), logits_of(99, len(company))])
        token = int(sample(logits, [sampler, *company])[0])
        sampler.note(token)
        tokens.append(token)
    return tokens


def drawn_by_transformers(settings: Sampling, steps: int, suppress: list[int]) -> list[int]:
    processors: list[Any] = [
        RepetitionPenaltyLogitsProcessor(settings.repetition_penalty),
        SuppressTokensLogitsProcessor(suppress),
        TemperatureLogitsWarper(settings.temperature),
        TopKLogitsWarper(settings.top_k),
        TopPLogitsWarper(settings.top_p),
    ]
    generator = torch.Generator().manual_seed(settings.seed or 0)
    tokens: list[int] = []
    for step in range(steps):
        seen = torch.tensor([tokens], dtype=torch.long)
        scores = LogitsProcessorList(processors)(seen, logits_of(step))
        tokens.append(int(torch.multinomial(scores.softmax(-1), 1, generator=generator)))
    return tokens


def test_the_order_of_the_rules_is_that_of_transformers() -> None:
    settings = Sampling(temperature=0.9, top_p=0.8, top_k=20, repetition_penalty=1.3, seed=7)
    suppress = [3, 5, 8]
    sampler = Sampler(settings)
    tokens = []
    for step in range(40):
        tokens.append(int(sample(logits_of(step), [sampler], suppress=torch.tensor(suppress))[0]))
        sampler.note(tokens[-1])
    assert tokens == drawn_by_transformers(settings, 40, suppress)
    assert len(set(tokens)) > 10


@pytest.mark.parametrize("temperature", [0.0, 1e-40])
def test_at_temperature_zero_or_next_to_it_the_likeliest_token_is_taken(temperature: float) -> None:
    assert draw(Sampling(temperature=temperature), 10) == [int(logits_of(step).argmax()) for step in range(10)]


def test_a_seed_chooses_alike_in_any_company() -> None:
    settings = Sampling(temperature=1.0, top_k=50, seed=11)
    company = [Sampler(Sampling(temperature=t, top_k=50, seed=s)) for t, s in ((1.0, 1), (0.0, 2), (0.5, 3))]
    assert draw(settings, 20, company) == draw(settings, 20)


def test_without_a_seed_two_requests_choose_differently() -> None:
    assert draw(Sampling(temperature=1.0), 30) != draw(Sampling(temperature=1.0), 30)


def test_the_penalty_counts_the_prompt_where_it_is_told_of_it() -> None:
    logits = torch.zeros(1, 4)
    logits[0, 2] = 1.0
    logits[0, 1] = 0.9
    assert int(sample(logits, [Sampler(Sampling(temperature=0, repetition_penalty=2.0), seen=[2])])[0]) == 1


@pytest.mark.parametrize("setting", [{"top_k": 1}, {"top_p": 1e-6}, {"top_p": 0.0}])
def test_the_tightest_choice_still_has_a_token(setting: dict[str, Any]) -> None:
    assert draw(Sampling(temperature=1.0, **setting), 5) == draw(Sampling(temperature=0), 5)
