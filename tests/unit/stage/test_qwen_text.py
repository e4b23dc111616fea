"""What the caller reads: whole characters, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from omni_common.errors import Internal
from omni_common.request import FinishReason, GenerationParams, TerminalResult, TextOutput, Usage
from omni_stage.models.qwen3_omni.callbacks import StopFilter
from omni_stage.models.qwen3_omni.components.decode import TextSession
from omni_stage.models.qwen3_omni.components.tokens import Detokenizer, Vocabulary
from omni_stage.models.qwen3_omni.payload_types import TextEnd, TextTokens

SENTENCE = "Grüße, 你好 🙂 <b> done"
END = TextEnd(FinishReason.STOP, Usage(completion_text_tokens=3))


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_qwen)


@pytest.fixture(scope="module")
def vocabulary(tiny_qwen: Path) -> Vocabulary:
    return Vocabulary(tiny_qwen)


def read(vocabulary: Vocabulary, ids: Sequence[int], stop: tuple[str, ...] = ()) -> list[str]:
    """What a session emits for each token, and at the end."""
    session = TextSession(vocabulary, GenerationParams(stop=stop))
    made: list[object] = []
    for position, token in enumerate(ids):
        made += session.push("thinker", [TextTokens((token,), END if position == len(ids) - 1 else None)])
    rest, result = session.finish()
    assert result == TerminalResult(FinishReason.STOP, END.usage)
    return [output.text for output in (*made, *rest) if isinstance(output, TextOutput)]


def test_characters_of_several_tokens_come_out_whole(vocabulary: Vocabulary, tokenizer: Any) -> None:
    ids = tokenizer(SENTENCE)["input_ids"]
    pieces = read(vocabulary, ids)
    assert len(ids) > len(SENTENCE.encode()) / 4
    assert "".join(pieces) == SENTENCE
    assert not any("\ufffd" in piece for piece in pieces)


@given(seed=st.lists(st.integers(0, 1087), max_size=40))
def test_any_tokens_read_as_the_tokenizer_reads_them_at_once(
    seed: list[int], vocabulary: Vocabulary, tokenizer: Any
) -> None:
    text = Detokenizer(vocabulary)
    pieces = "".join(map(text.push, seed)) + text.finish()
    assert pieces == tokenizer.decode([i for i in seed if i < len(tokenizer)], skip_special_tokens=True)


def test_control_tokens_say_nothing(vocabulary: Vocabulary, tokenizer: Any) -> None:
    ids = tokenizer("<|im_start|>Hi<tts_pad><|im_end|>")["input_ids"]
    assert "".join(read(vocabulary, ids)) == "Hi"


@pytest.mark.parametrize("stop", [("<b>",), ("好 🙂", "never"), ("done", " d"), ("nowhere",), ("", "x")], ids=str)
def test_text_ends_before_the_first_stop_string(stop: tuple[str, ...], vocabulary: Vocabulary, tokenizer: Any) -> None:
    found = [SENTENCE.find(s) for s in stop if s and s in SENTENCE]
    expected = SENTENCE[: min(found)] if found else SENTENCE
    assert "".join(read(vocabulary, tokenizer(SENTENCE)["input_ids"], stop)) == expected


@given(
    pieces=st.lists(st.text("ab", max_size=3), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_however_text_is_cut_the_filter_lets_the_same_through(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    filtered = StopFilter(stops)
    out = ""
    for piece in pieces:
        out += filtered.push(piece)
        assert text.startswith(out)
    out += filtered.finish()
    # The first stop string to be complete wins, and of those the one that begins first.
    ends = [n for n in range(1, len(text) + 1) if any(text[:n].endswith(s) for s in stops)]
    assert filtered.hit == bool(ends)
    assert not any(stop in out for stop in stops)
    if not ends:
        assert out == text


def test_a_stream_that_ends_without_an_end_is_an_error(vocabulary: Vocabulary) -> None:
    session = TextSession(vocabulary, GenerationParams())
    session.push("thinker", [TextTokens((1,))])
    with pytest.raises(Internal):
        session.finish()
