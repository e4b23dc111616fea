"""The thinker with kept prompts, step by step: what it computes, how far its numbers are from those of a whole prompt,
and what is left when requests end in any way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from omni_common.request import GenerationParams, Modality, RequestKey, Sampling, Usage
from omni_stage.components.ar_runner import last_rows
from omni_stage.components.kv_cache import GrowingStore
from omni_stage.components.prefix_cache import BLOCK_TOKENS
from omni_stage.components.tensors import from_torch
from omni_stage.models import load_family
from omni_stage.models.qwen3_omni.components.splices import spliced_digests
from omni_stage.models.qwen3_omni.components.text_model import PREFIXES
from omni_stage.models.qwen3_omni.components.thinker import ThinkerRunner, ThinkerSequence, ThinkerStep
from omni_stage.models.qwen3_omni.components.weights import Weights, open_weights
from omni_stage.models.qwen3_omni.payload_types import (
    AudioFeatures,
    ImageFeatures,
    Layout,
    Prompt,
    TalkerPrefill,
    TextTokens,
    ThinkerInput,
)
from omni_stage.program import StageContext
from omni_stage.scheduler.ar_contract import Batch, CacheUse
from omni_stage.scheduler.contract import Emit, NewRequest, Outgoing, Result

ANSWER = 40  # tokens: more than a block
# Of logits that reach 12. Attention to kept keys sums in another order; measured are 4e-6.
CLOSE = 1e-4
A, B = RequestKey("a"), RequestKey("b")


class Watched(ThinkerRunner):
    """Notes the logits of every step, and how many tokens it ran."""

    def __init__(self, weights: Weights, prefix_cache: int = 64 << 20) -> None:
        store = GrowingStore(weights.config.thinker_config.text_config.num_hidden_layers)
        super().__init__(weights, store, prefix_cache=prefix_cache)
        self.store = store
        self.logits: list[torch.Tensor] = []
        self.ran: list[int] = []

    def after(
        self, sequences: Sequence[ThinkerSequence], inputs: Sequence[ThinkerStep], hidden: torch.Tensor
    ) -> Sequence[Outgoing]:
        self.logits.append(linear(last_rows(inputs, hidden), self._head))
        self.ran.append(len(hidden))
        return super().after(sequences, inputs, hidden)

    def say(self, source: ThinkerInput, tokens: int = ANSWER) -> tuple[list[int], torch.Tensor, list[Outgoing]]:
        """The answer, the logits of each of its tokens, and all that was said to other stages."""
        self.logits.clear()
        self.ran.clear()
        made = self.begin(A, source, tokens)
        while not any(isinstance(item, Result) for item in made):
            made += self.execute(Batch((), (A,)))
        self.close(A)
        return answer_of(made), torch.cat(self.logits), made

    def begin(self, key: RequestKey, source: ThinkerInput, tokens: int = ANSWER) -> list[Outgoing]:
        self.open(NewRequest(key, params(tokens), source))
        return [*self.execute(Batch((key,), ()))]


def params(tokens: int) -> GenerationParams:
    both = frozenset({Modality.TEXT, Modality.AUDIO})
    return GenerationParams(modalities=both, sampling=Sampling(temperature=0.0, max_tokens=tokens))


def answer_of(made: Sequence[Outgoing]) -> list[int]:
    chunks = [item.chunk for item in made if isinstance(item, Emit)]
    return [token for chunk in chunks if isinstance(chunk, TextTokens) for token in chunk.ids]


def heard_of(made: Sequence[Outgoing]) -> TalkerPrefill:
    (heard,) = (i.chunk for i in made if isinstance(i, Emit) and isinstance(i.chunk, TalkerPrefill))
    return heard


@pytest.fixture(scope="module")
def weights(tiny_qwen: Path) -> Iterator[Weights]:
    before = torch.get_num_threads()
    pipeline = load_family("qwen3-omni").pipeline
    stage = pipeline.stage("thinker")
    yield open_weights(StageContext(pipeline, stage, tiny_qwen, "cpu", "float32", 1, lambda a, b: None), *PREFIXES)
    torch.set_num_threads(before)


@pytest.fixture
def watched(weights: Weights) -> Watched:
    return Watched(weights)


def asked(weights: Weights, words: Sequence[int], before: Sequence[int] = ()) -> ThinkerInput:
    """A turn of the user's with these tokens, behind what came before."""
    config = weights.config
    opening = [config.im_start_token_id, config.user_token_id]
    ids = [*before, *opening, *words, config.im_end_token_id, config.im_start_token_id, config.assistant_token_id]
    return ThinkerInput(Prompt(layout(torch.tensor(ids)), speech=True, usage=Usage()), None, None)


def layout(ids: torch.Tensor, grid: Sequence[int] = (), frames: tuple[int, ...] = ()) -> Layout:
    return Layout(from_torch(ids), from_torch(torch.tensor([grid])) if grid else None, None, frames, ())


def ids_of(source: ThinkerInput) -> list[int]:
    numbers: list[int] = torch.frombuffer(bytearray(source.prompt.layout.ids.data), dtype=torch.int64).tolist()
    return numbers


def words(count: int, seed: int = 0) -> list[int]:
    """Letters and the like: no marks, no media."""
    drawn: list[int] = torch.randint(10, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return drawn


@pytest.mark.parametrize("count", [20, 59, 60, 300])
def test_a_kept_prompt_is_not_computed_again_and_gives_the_same_answer(
    count: int, watched: Watched, weights: Weights
) -> None:
    source = asked(weights, words(count))
    length = count + 5
    tokens, logits, _ = watched.say(source)
    assert watched.ran[0] == length
    again, close, made = watched.say(source)
    reused = (length - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert watched.ran[0] == length - reused
    assert again == tokens
    torch.testing.assert_close(close, logits, atol=CLOSE, rtol=0)
    (end,) = (i.chunk.end for i in made if isinstance(i, Emit) and isinstance(i.chunk, TextTokens) and i.chunk.end)
    assert end.usage == Usage(completion_text_tokens=len(again), prompt_cached_tokens=reused)


def test_the_next_turn_computes_only_what_was_said_since(watched: Watched, weights: Weights) -> None:
    first = asked(weights, words(100))
    answer, _, _ = watched.say(first)
    end = [weights.config.im_end_token_id]
    said = [*answer, *end] if answer[-1] != end[0] else answer
    second = asked(weights, words(30, seed=1), before=[*ids_of(first), *said])
    _, close, _ = watched.say(second)
    known = len(ids_of(first)) + len(answer) - 1  # the last token was never fed
    assert known // BLOCK_TOKENS > len(ids_of(first)) // BLOCK_TOKENS
    assert watched.ran[0] == len(ids_of(second)) - known // BLOCK_TOKENS * BLOCK_TOKENS
    _, whole, _ = Watched(weights, prefix_cache=0).say(second)
    torch.testing.assert_close(close, whole, atol=CLOSE, rtol=0)


def test_prompts_that_begin_alike_share_their_beginning_in_one_batch(watched: Watched, weights: Weights) -> None:
    watched.say(asked(weights, words(100)))
    others = [asked(weights, [*words(70), *words(9, seed=seed)]) for seed in (1, 2)]
    for key, source in zip((A, B), others, strict=True):
        watched.open(NewRequest(key, params(ANSWER), source))
    watched.ran.clear()
    made = [*watched.execute(Batch((A, B), ()))]
    assert watched.ran == [2 * (70 + 9 + 5 - 64)]
    assert (watched.prompt_tokens, watched.reused_tokens) == (2 * 20, 2 * 64)
    for key, source in zip((A, B), others, strict=True):
        (token,) = answer_of([item for item in made if item.key == key])
        assert token == Watched(weights, prefix_cache=0).say(source)[0][0]


def picture(weights: Weights, seed: int, grid: tuple[int, int] = (8, 12)) -> ThinkerInput:
    """48 words, then a picture of so many patches by so many, behind which there is a clip of sound."""
    thinker = weights.config.thinker_config
    count, clip = grid[0] * grid[1] // 4, 13
    marks = [thinker.vision_start_token_id, *[thinker.image_token_id] * count, thinker.vision_end_token_id]
    marks += [thinker.audio_start_token_id, *[thinker.audio_token_id] * clip, thinker.audio_end_token_id]
    text = asked(weights, [*words(48), *marks, *words(20)])
    generator = torch.Generator().manual_seed(seed)
    width, layers = thinker.text_config.hidden_size, 2
    rows = torch.randn(count, width, generator=generator)
    deep = torch.randn(layers, count, width, generator=generator)
    sound = torch.randn(clip, width, generator=generator)
    ids = torch.tensor(ids_of(text))
    return ThinkerInput(
        Prompt(layout(ids, (1, *grid), (100,)), speech=True, usage=Usage()),
        ImageFeatures(from_torch(rows), from_torch(deep), None, None),
        AudioFeatures(from_torch(sound)),
    )


def test_the_talker_hears_the_same_of_a_picture_that_was_not_computed_again(watched: Watched, weights: Weights) -> None:
    source = picture(weights, seed=1)
    tokens, logits, made = watched.say(source)
    again, close, made_again = watched.say(source)
    assert watched.ran[0] <= BLOCK_TOKENS
    assert again == tokens
    torch.testing.assert_close(close, logits, atol=CLOSE, rtol=0)
    first, second = (heard_of(m) for m in (made, made_again))
    assert second.rows.shape == first.rows.shape
    rows = [torch.frombuffer(bytearray(h.rows.data), dtype=torch.float32) for h in (first, second)]
    torch.testing.assert_close(rows[1], rows[0], atol=CLOSE, rtol=0)
    assert bytes(second.spoken_media.data) == bytes(first.spoken_media.data)


@pytest.mark.parametrize(
    "other",
    [pytest.param((2, (8, 12)), id="other pixels"), pytest.param((1, (12, 8)), id="the same rows in another shape")],
)
def test_another_picture_in_the_same_words_is_computed(
    other: tuple[int, tuple[int, int]], watched: Watched, weights: Weights
) -> None:
    watched.say(picture(weights, seed=1))
    source = picture(weights, other[0], other[1])
    answer, close, made = watched.say(source)
    assert watched.ran[0] == len(ids_of(source)) - BLOCK_TOKENS  # the first block is words only
    alone, whole, made_alone = Watched(weights, prefix_cache=0).say(source)
    assert answer == alone
    torch.testing.assert_close(close, whole, atol=CLOSE, rtol=0)
    rows = [torch.frombuffer(bytearray(heard_of(m).rows.data), dtype=torch.float32) for m in (made, made_alone)]
    torch.testing.assert_close(rows[0], rows[1], atol=CLOSE, rtol=0)


def changed(source: ThinkerInput, part: str, place: int) -> ThinkerInput:
    """One bit of one row is another."""
    assert source.image is not None
    assert source.audio is not None
    kinds = {"rows": source.image.image, "deepstack": source.image.image_deepstack, "sound": source.audio.audio}
    old = kinds[part]
    assert old is not None
    values = torch.frombuffer(bytearray(old.data), dtype=torch.float32).reshape(old.shape).clone()
    values[..., place, -1].view(torch.int32).bitwise_xor_(1)
    new = from_torch(values)
    if part == "sound":
        return replace(source, audio=AudioFeatures(new))
    changes = {"image": new} if part == "rows" else {"image_deepstack": new}
    return replace(source, image=replace(source.image, **changes))


@pytest.mark.parametrize(
    ("part", "place", "block"),
    [("rows", 0, 1), ("rows", 12, 1), ("rows", 13, 2), ("deepstack", 0, 1), ("deepstack", 23, 2), ("sound", 12, 2)],
)
def test_one_bit_of_a_row_makes_another_block(part: str, place: int, block: int, weights: Weights) -> None:
    source = picture(weights, seed=1)
    digests = [
        spliced_digests(
            s, torch.tensor(ids_of(s)), weights.config.thinker_config, lambda parts: b"|".join(map(bytes, parts))
        )
        for s in (source, changed(source, part, place))
    ]
    assert [n for n, pair in enumerate(zip(*digests, strict=True)) if pair[0] != pair[1]] == [block]
    assert digests[0][0] == b""  # words only


def budget_of(blocks: float, weights: Weights) -> int:
    """Bytes of so many blocks that are all media."""
    config = weights.config.thinker_config.text_config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    return int(blocks * BLOCK_TOKENS * (token + config.hidden_size * 4))


def test_a_picture_may_be_kept_in_part(weights: Weights) -> None:
    kept = Watched(weights, budget_of(2, weights))
    source = picture(weights, seed=1)  # the second block ends amid its rows
    _, whole, made = kept.say(source)
    _, close, made_again = kept.say(source)
    assert kept.ran[0] == len(ids_of(source)) - 2 * BLOCK_TOKENS
    torch.testing.assert_close(close, whole, atol=CLOSE, rtol=0)
    rows = [torch.frombuffer(bytearray(heard_of(m).rows.data), dtype=torch.float32) for m in (made, made_again)]
    torch.testing.assert_close(rows[1], rows[0], atol=CLOSE, rtol=0)


@pytest.mark.parametrize("blocks", [0.5, 1, 3, 7])
def test_however_little_is_kept_answers_stay_the_same(blocks: float, weights: Weights) -> None:
    budget = budget_of(blocks, weights)
    sources = [*(asked(weights, words(150, seed)) for seed in range(3)), picture(weights, 1), picture(weights, 2)]
    expected = [Watched(weights, prefix_cache=0).say(source, 5)[0] for source in sources]
    kept = Watched(weights, prefix_cache=budget)
    for turn in range(3):
        order = range(len(sources)) if turn % 2 else reversed(range(len(sources)))
        for n in order:
            assert kept.say(sources[n], 5)[0] == expected[n]
            assert kept.store.kept <= kept.cache_use().kept <= budget


def test_whatever_ends_a_request_gives_back_all_but_what_is_kept(watched: Watched, weights: Weights) -> None:
    source = asked(weights, words(100))
    watched.open(NewRequest(A, params(ANSWER), source))
    watched.close(A)  # before its first step
    assert watched.cache_use() == CacheUse()
    watched.begin(A, source)
    assert watched.cache_use().tokens == 105
    watched.close(A)  # in the middle
    prompt = watched.cache_use()
    assert (prompt.tokens, prompt.size) == (0, 0)
    assert prompt.kept == watched.store.kept > 0
    for n in range(50):
        watched.begin(A, source)
        watched.execute(Batch((), (A,)))
        watched.close(A)
        assert watched.cache_use() == prompt, n


def test_nothing_is_kept_where_nothing_may_be(weights: Weights) -> None:
    off = Watched(weights, prefix_cache=0)
    source = asked(weights, words(100))
    for _ in range(2):
        _, _, made = off.say(source)
        assert off.ran[0] == 105
    assert off.cache_use() == CacheUse()
    assert heard_of(made).rows.shape[0] > 0
