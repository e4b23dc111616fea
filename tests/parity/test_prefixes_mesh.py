"""A caller who asks twice is told how much of the prompt was known, and hears what the whole model says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.parity.cases import Draw
from tests.parity.conftest import Expected
from tests.parity.conversations import asked, conversation
from tests.parity.over_http import Heard, Served, spoken
from tests.parity.test_mesh import WAYS, assert_same, tokenizer

from omni_stage.components.prefix_cache import BLOCK_TOKENS

__all__ = ["tokenizer"]  # the fixture

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GREEDY = Draw(None)
_PROMPTS = re.compile(r'^omni_stage_prompt_tokens_total{kind="(\w+)",stage="thinker"} (\S+)$', re.M)


async def answer(served: Served, kind: str, *, streamed: bool) -> Heard:
    wanted = asked(conversation(kind), GREEDY)
    if streamed:
        return await served.streamed(spoken(wanted, "pcm16"))
    heard = await served.whole(spoken(wanted, "wav"))
    heard.speech = heard.speech[44:]
    return heard


def counts(heard: Heard) -> tuple[int, int]:
    """Tokens of the prompt, and how many of them were known."""
    assert heard.usage is not None
    assert heard.usage.prompt_tokens_details is not None
    return heard.usage.prompt_tokens, heard.usage.prompt_tokens_details.cached_tokens or 0


async def prompts(served: Served) -> dict[str, float]:
    (thinker,) = (p.name for p in served.mesh.plan.processes if p.service == "omni_stage" and "thinker" in p.name)
    return {kind: float(number) for kind, number in _PROMPTS.findall(await served.metrics(thinker))}


@pytest.mark.parametrize("streamed", WAYS)
@pytest.mark.parametrize("kind", ["t", "it", "at"])
async def test_what_was_read_before_is_counted_and_answered_the_same(
    kind: str, streamed: bool, served: Served, expected: Expected, tokenizer: Any
) -> None:
    await answer(served, kind, streamed=streamed)
    before = await prompts(served)
    heard = await answer(served, kind, streamed=streamed)
    after = await prompts(served)
    assert_same(heard, expected.answer(conversation(kind), GREEDY), tokenizer)
    tokens, known = counts(heard)
    assert known == (tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS > 100
    assert after["prefix_hit"] - before["prefix_hit"] == known
    assert after["computed"] - before["computed"] == tokens - known
