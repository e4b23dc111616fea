"""Prompts that begin like earlier ones are answered as by the whole model, which computes each from its first token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.parity.cases import Draw
from tests.parity.conftest import Expected
from tests.parity.conversations import asked, conversation
from tests.parity.in_process import Answer, InProcess
from tests.parity.test_stages_in_process import DRAWS, GREEDY, assert_same

from omni_common.request import Sampling
from omni_stage.components.prefix_cache import BLOCK_TOKENS
from omni_stage.models import load_family
from omni_stage.models.qwen3_omni.payload_types import CodecFrames
from omni_stage.scheduler.contract import Load

KINDS = ["t", "it", "at", "vt", "kiavt"]


@pytest.fixture
def stages(tiny: Path) -> Iterator[InProcess]:
    """They have read nothing yet."""
    with InProcess(load_family("qwen3-omni"), tiny) as running:
        yield running


def cached(answer: Answer) -> int:
    return answer.results["decode"].usage.prompt_cached_tokens


def prompt(answer: Answer) -> int:
    return answer.results["decode"].usage.prompt_tokens


def most(answer: Answer) -> int:
    """All that can be reused of a prompt."""
    return (prompt(answer) - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def codes(answer: Answer) -> list[bytes]:
    return [bytes(c.codes.data) for _, c in answer.chunks if isinstance(c, CodecFrames)]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_request_is_answered_the_same_the_second_time(
    kind: str, draw: Draw, stages: InProcess, expected: Expected
) -> None:
    first, second = (stages.run(asked(conversation(kind), draw)) for _ in range(2))
    for answer in (first, second):
        assert_same(answer, expected.answer(conversation(kind), draw))
    assert codes(first) == codes(second)
    assert prompt(first) == prompt(second)
    assert cached(first) == 0
    assert cached(second) == most(second) > 100


@pytest.mark.parametrize("draw", DRAWS)
def test_each_turn_of_a_conversation_reuses_those_before_it(draw: Draw, stages: InProcess, expected: Expected) -> None:
    turns = [("it",), ("it", "au"), ("it", "au", "ku")]
    answers = [stages.run(asked(conversation(*turn), draw)) for turn in turns]
    for turn, answer in zip(turns, answers, strict=True):
        assert_same(answer, expected.answer(conversation(*turn), draw))
    assert cached(answers[0]) == 0
    for before, answer in pairwise(answers):
        # The opening of the assistant's turn is the last that both have; then the answers differ.
        assert prompt(before) - BLOCK_TOKENS < cached(answer) <= prompt(before)


def test_the_same_question_of_another_picture_is_answered_of_that_picture(
    stages: InProcess, expected: Expected
) -> None:
    answers = [stages.run(asked(conversation(kind), GREEDY)) for kind in ("it", "jt", "it")]
    for kind, answer in zip(("it", "jt", "it"), answers, strict=True):
        assert_same(answer, expected.answer(conversation(kind), GREEDY))
    assert prompt(answers[0]) == prompt(answers[1])
    assert codes(answers[0]) != codes(answers[1])
    assert 0 < cached(answers[1]) < cached(answers[2]) == most(answers[2])


def test_many_at_once_that_begin_alike_are_answered_as_each_alone(stages: InProcess, expected: Expected) -> None:
    stages.run(asked(conversation("t"), GREEDY))
    kinds = [*KINDS, "t", "jt", "u"]
    answers = [stages.submit(f"{n}", asked(conversation(kind), GREEDY)) for n, kind in enumerate(kinds)]
    for kind, answer in zip(kinds, answers, strict=True):
        assert answer.over.wait(50)
        assert_same(answer, expected.answer(conversation(kind), GREEDY))
        assert cached(answer) > 0  # the system's turn, at least


def kept(gauge: str) -> float:
    """Of the thinker of this process."""
    return REGISTRY.get_sample_value(gauge, {"stage": "thinker"}) or 0.0


def test_with_hardly_any_room_answers_are_the_same(tiny: Path, expected: Expected) -> None:
    room = 100_000
    with InProcess(load_family("qwen3-omni"), tiny, prefix_cache=room) as stages:
        for kind in ("kiavt", "t", "kiavt"):
            answer = stages.run(asked(conversation(kind), GREEDY))
            assert_same(answer, expected.answer(conversation(kind), GREEDY))
            assert 0 < kept("omni_prefix_cache_bytes") <= room
    assert 0 < cached(answer) < most(answer)


def test_a_caller_who_leaves_leaves_what_was_read_and_nothing_else(stages: InProcess, expected: Expected) -> None:
    usual = asked(conversation("iat"), GREEDY)
    endless = Sampling(temperature=0, repetition_penalty=1.0, max_tokens=400)
    left_amid = replace(usual, params=replace(usual.params, stage_sampling={"talker": endless}))
    after = []
    for n in range(3):
        left = stages.submit(f"left {n}", left_amid)
        assert left.speaking.wait(50)
        stages.abort(f"left {n}")
        assert left.over.wait(50)
        assert set(stages.loads().values()) == {Load(running=0, waiting=0)}
        # The gauges are set when a step ends, before its answers leave.
        assert_same(stages.run(usual), expected.answer(conversation("iat"), GREEDY))
        assert kept("omni_kv_cache_tokens") == kept("omni_kv_cache_bytes") == 0
        after.append(kept("omni_prefix_cache_bytes"))
    assert 0 < after[0] == after[1] == after[2]
