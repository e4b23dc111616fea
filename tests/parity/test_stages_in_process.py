"""Qwen3-Omni cut into stages says what the whole model says: same tokens, same sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.parity.cases import CASES, FRAMES, Draw, request
from tests.parity.conftest import Expected
from tests.parity.in_process import Answer, InProcess
from tests.parity.reference import Spoken

from omni_stage.models import load_family
from omni_stage.models.qwen3_omni.payload_types import TextTokens

GREEDY, SEEDED = Draw(None), Draw(1234)
DRAWS = [pytest.param(GREEDY, id="greedy"), pytest.param(SEEDED, id="seeded")]


@pytest.fixture(scope="module")
def stages(tiny: Path) -> Iterator[InProcess]:
    with InProcess(load_family("qwen3-omni"), tiny) as running:
        yield running


def assert_same(answer: Answer, spoken: Spoken) -> None:
    if answer.error is not None:
        raise answer.error
    assert [i for _, c in answer.chunks if isinstance(c, TextTokens) for i in c.ids] == spoken.tokens
    wave = np.frombuffer(answer.pcm, dtype="<i2") / 32767
    frames = answer.results["code2wav"].usage.completion_audio_tokens
    assert len(wave) == frames * 1920 - 555 == len(spoken.wave)
    assert np.abs(wave - spoken.wave.numpy()).max() < 1e-3


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("case", CASES)
def test_a_request_alone_is_answered_as_by_the_whole_model(
    case: str, draw: Draw, stages: InProcess, expected: Expected
) -> None:
    assert_same(stages.run(request(case, draw)), expected.of(case, draw))


@pytest.mark.parametrize("draw", DRAWS)
def test_eight_requests_at_once_are_answered_as_each_alone(draw: Draw, stages: InProcess, expected: Expected) -> None:
    cases = list(CASES)
    assert len(cases) == 8
    answers = [stages.submit(f"{n}", request(case, draw)) for n, case in enumerate(cases)]
    for case, answer in zip(cases, answers, strict=True):
        assert answer.over.wait(50)
        assert_same(answer, expected.of(case, draw))


def test_requests_with_different_seeds_do_not_share_their_luck(stages: InProcess, expected: Expected) -> None:
    draws = [Draw(seed) for seed in (1, 2, 3, 2)]
    answers = [stages.submit(f"seed {n}", request("image and audio", draw)) for n, draw in enumerate(draws)]
    for draw, answer in zip(draws, answers, strict=True):
        assert answer.over.wait(50)
        assert_same(answer, expected.of("image and audio", draw))
    assert answers[0].text != answers[1].text
    assert answers[1].text == answers[3].text


def test_the_reference_speaks_to_the_end_of_its_frames(expected: Expected) -> None:
    """If tiny weights fell silent at once, the comparisons above would compare nothing."""
    assert len(expected.of("text", GREEDY).wave) == (FRAMES - 1) * 1920 - 555
    assert float(expected.of("text", GREEDY).wave.std()) > 0.01
