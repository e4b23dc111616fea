"""When speech begins, when it ends, and what there is not to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.parity.cases import TEXT_TOKENS, Draw, request
from tests.parity.in_process import InProcess

from omni_common.request import FinishReason, GenerationRequest, Message, Modality, Role, Sampling, Text
from omni_stage.models import load_family
from omni_stage.models.qwen3_omni.payload_types import CodecFrames, SpokenTokens, TextTokens


@pytest.fixture(scope="module")
def stages(tiny_qwen: Path) -> Iterator[InProcess]:
    with InProcess(load_family("qwen3-omni"), tiny_qwen) as running:
        yield running


def greedy(**changes: object) -> GenerationRequest:
    made = request("text", Draw(None))
    return replace(made, params=replace(made.params, **changes))  # type: ignore[arg-type]


def test_a_reply_of_one_token_is_not_spoken(stages: InProcess) -> None:
    answer = stages.run(greedy(sampling=Sampling(temperature=0, max_tokens=1)))
    assert answer.error is None
    assert answer.pcm == b""
    assert answer.results["decode"].finish_reason is FinishReason.LENGTH
    assert answer.results["decode"].usage.completion_text_tokens == 1
    assert answer.results["code2wav"].usage.completion_audio_tokens == 0


def test_the_last_token_is_written_but_not_spoken(stages: InProcess) -> None:
    answer = stages.run(greedy())
    written = [i for _, c in answer.chunks if isinstance(c, TextTokens) for i in c.ids]
    spoken = [c for _, c in answer.chunks if isinstance(c, SpokenTokens)]
    assert len(spoken) == len(written) - 1


def test_the_talker_speaks_before_the_thinker_has_finished(stages: InProcess) -> None:
    answer = stages.run(greedy(sampling=Sampling(temperature=0, max_tokens=300)))
    order = [c for _, c in answer.chunks if isinstance(c, TextTokens | CodecFrames)]
    first_frame = next(n for n, c in enumerate(order) if isinstance(c, CodecFrames))
    assert any(isinstance(c, TextTokens) for c in order[first_frame:])


def test_a_request_for_text_alone_never_reaches_the_talker(stages: InProcess) -> None:
    answer = stages.run(greedy(modalities=frozenset({Modality.TEXT})))
    assert {stage for stage, _ in answer.chunks} == {"thinker", "decode"}
    assert set(answer.results) == {"decode"}


def test_text_stops_at_a_stop_string_and_generation_with_it(stages: InProcess) -> None:
    whole = stages.run(greedy(modalities=frozenset({Modality.TEXT}))).text
    stop = whole[10:14]
    answer = stages.run(greedy(modalities=frozenset({Modality.TEXT}), stop=(stop,)))
    assert answer.text == whole[: whole.index(stop)]
    assert answer.results["decode"].finish_reason is FinishReason.STOP
    assert answer.results["decode"].usage.completion_text_tokens < 24


def test_the_text_ends_where_the_context_does(stages: InProcess) -> None:
    long = GenerationRequest(
        "qwen3-omni",
        (Message(Role.USER, (Text("a b c d e f g h " * 500),)),),
        replace(greedy().params, modalities=frozenset({Modality.TEXT}), sampling=Sampling(0, max_tokens=10_000)),
    )
    answer = stages.run(long)
    usage = answer.results["decode"].usage
    assert usage.prompt_tokens > 3900
    assert usage.prompt_tokens + usage.completion_text_tokens == 4096
    assert answer.results["decode"].finish_reason is FinishReason.LENGTH


def test_the_stages_run_in_half_precision_too(tiny_qwen: Path) -> None:
    with InProcess(load_family("qwen3-omni"), tiny_qwen, dtype="bfloat16") as running:
        answer = running.run(request("image, audio and video", Draw(None)))
    assert answer.error is None
    assert answer.results["decode"].usage.completion_text_tokens == TEXT_TOKENS
    frames = answer.results["code2wav"].usage.completion_audio_tokens
    assert len(answer.pcm) == 2 * (frames * 1920 - 555) > 0
