"""The thinker: reads the whole prompt, writes the text, and tells the talker what it may hear.

The talker gets, at the prompt's run, one row per position of the user's turns, and then each token's embedding as it
is made. The last token, an end mark or a cut, is never spoken. Of text the talker hears embeddings only, so an answer
that is given word for word needs no step of the model.

What a prompt has in common with an earlier conversation is not computed again: `known_prompts`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from omni_common.request import FinishReason, Modality, Sampling, Usage
from omni_stage.components.ar_runner import ArRunner, ArSequence, StepInput, last_rows
from omni_stage.components.attention import Packed
from omni_stage.components.kv_cache import KvStore
from omni_stage.components.prefix_cache import PrefixCache
from omni_stage.components.sampler import Sampler, sample
from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.models.qwen3_omni.callbacks import StopFilter
from omni_stage.models.qwen3_omni.components.known_prompts import Known, KnownPrompts
from omni_stage.models.qwen3_omni.components.position import PositionRule
from omni_stage.models.qwen3_omni.components.splices import media_of, splice
from omni_stage.models.qwen3_omni.components.text_model import TextModel, TextRows
from omni_stage.models.qwen3_omni.components.tokens import Detokenizer, Vocabulary
from omni_stage.models.qwen3_omni.components.weights import Weights
from omni_stage.models.qwen3_omni.payload_types import (
    SpokenTokens,
    TalkerPrefill,
    TextEnd,
    TextTokens,
    ThinkerInput,
    expect,
)
from omni_stage.models.qwen3_omni.request_builders import thinker_sampling
from omni_stage.scheduler.contract import Emit, NewRequest, Outgoing, Result


@dataclass(frozen=True, slots=True)
class ThinkerStep(StepInput):
    """`visual` marks the rows of pictures and videos, `deepstack` [d, n, H] is added to them in the first layers."""

    visual: torch.Tensor | None = None
    deepstack: torch.Tensor | None = None

    def without(self, tokens: int) -> ThinkerStep:
        """What is left behind the first so many."""
        embeds, positions = self.embeds[tokens:], self.positions[:, tokens:]
        if self.visual is None or self.deepstack is None:
            return ThinkerStep(embeds, positions)
        seen = int(self.visual[:tokens].sum())
        if seen == self.deepstack.shape[1]:
            return ThinkerStep(embeds, positions)
        return ThinkerStep(embeds, positions, self.visual[tokens:], self.deepstack[:, seen:])


@dataclass(slots=True, kw_only=True, eq=False)
class ThinkerSequence(ArSequence):
    source: ThinkerInput
    ids: torch.Tensor
    prompt_usage: Usage
    delta: int = 0
    next_embed: torch.Tensor | None = None  # of the token generated last; None before the prompt has run
    speaks: bool = False
    stop: StopFilter | None = None
    text: Detokenizer | None = None
    prompt_embeds: torch.Tensor | None = field(default=None, repr=False)
    known: Known | None = None
    answer: list[int] = field(default_factory=list)

    def is_stopped_by(self, token: int) -> bool:
        """Whether the text has come to one of the caller's stop strings."""
        if self.stop is None or self.text is None:
            return False
        self.stop.push(self.text.push(token))
        return self.stop.hit


class ThinkerRunner(ArRunner[ThinkerSequence, ThinkerStep]):
    """Runs the text model of one checkpoint."""

    def __init__(
        self, weights: Weights, store: KvStore, *, prefix_cache: int = 0, text: TextModel | None = None
    ) -> None:
        """`prefix_cache` bytes, beside the store's sequences, are for the beginnings of prompts; 0 keeps none. `text`
        is the model, where this process alone does not have it."""
        prefixes = PrefixCache(store, prefix_cache) if prefix_cache else None
        super().__init__(store, prefixes)
        self._config = weights.config
        thinker = weights.config.thinker_config
        self._known = None if prefixes is None else KnownPrompts(prefixes, thinker)
        self._text = text or TextModel(weights)
        self._model = self._text.module
        self._head = weights.checkpoint.tensors["thinker.lm_head.weight"]
        self._device = weights.device
        self._rule = PositionRule(thinker, thinker.audio_config, thinker.vision_config.spatial_merge_size)
        self._defaults = generation_defaults(weights.folder)
        self._vocabulary = Vocabulary(weights.folder)
        self._accepted: torch.Tensor | None = None
        accept = weights.config.talker_config.accept_hidden_layer
        self._model.layers[accept - 1].register_forward_hook(self._keep_accepted)

    def make(self, request: NewRequest) -> ThinkerSequence:
        source = expect(request.payload, ThinkerInput)
        ids = to_torch(source.prompt.layout.ids)
        settings = thinker_sampling(
            request.params,
            self._defaults,
            prompt=len(ids),
            context=self._config.thinker_config.text_config.max_position_embeddings,
        )
        limit = settings.max_tokens or 1
        stops = request.params.stop
        return ThinkerSequence(
            key=request.key,
            expected=len(ids) + min(limit, 256),
            sampler=Sampler(settings, device=self._device, seen=ids.tolist()),
            max_tokens=limit,
            source=source,
            ids=ids,
            prompt_usage=source.prompt.usage,
            speaks=Modality.AUDIO in request.params.modalities,
            stop=StopFilter(stops) if stops else None,
            text=Detokenizer(self._vocabulary) if stops else None,
        )

    def before(self, sequence: ThinkerSequence) -> ThinkerStep | None:
        if sequence.source.prompt.script:
            return None
        if sequence.next_embed is None:
            return self._prompt(sequence)
        position = len(sequence.ids) + sequence.generated - 1 + sequence.delta
        return ThinkerStep(
            sequence.next_embed[None], torch.full((3, 1), position, dtype=torch.float32, device=self._device)
        )

    def forward(self, inputs: Sequence[ThinkerStep], packed: Packed) -> torch.Tensor:
        visual = deepstack = None
        deepstacks = [i.deepstack for i in inputs if i.deepstack is not None]
        if deepstacks:
            visual = torch.cat([i.visual if i.visual is not None else _none(i) for i in inputs])
            deepstack = torch.cat(deepstacks, dim=1)
        embeds = torch.cat([i.embeds for i in inputs])
        positions = torch.cat([i.positions for i in inputs], dim=1)
        return self._text.forward(TextRows(embeds, positions, visual, deepstack).tensors(), packed)

    def after(
        self, sequences: Sequence[ThinkerSequence], inputs: Sequence[ThinkerStep], hidden: torch.Tensor
    ) -> Sequence[Outgoing]:
        made = self._prompts_ran(sequences, inputs)
        logits = linear(last_rows(inputs, hidden), self._head)
        chosen = sample(logits, [s.sampler for s in sequences])
        embeds = self._model.embed_tokens(chosen)
        spoken = embeds.cpu() if any(s.speaks for s in sequences) else embeds
        for row, (sequence, token) in enumerate(zip(sequences, chosen.tolist(), strict=True)):
            sequence.next_embed = embeds[row]
            made += self._written(sequence, token, spoken[row : row + 1])
        return made

    def end(self, sequence: ThinkerSequence) -> Sequence[Outgoing]:
        """A given answer, said at once."""
        key, script = sequence.key, sequence.source.prompt.script
        embeds = self._model.embed_tokens(sequence.ids.to(self._device))
        spoken = self._model.embed_tokens(torch.tensor(script[:-1], device=self._device))
        # Such a prompt has no media, whose rows alone come from the accept layer.
        heard = self._prefill(sequence.ids, embeds, accepted=embeds)
        return (
            Emit(key, heard, to=("talker",)),
            Emit(key, SpokenTokens(from_torch(spoken)), to=("talker",)),
            Emit(key, TextTokens(script, TextEnd(FinishReason.STOP, sequence.prompt_usage)), to=("decode",)),
            Result(key, None),
        )

    def _prompt(self, sequence: ThinkerSequence) -> ThinkerStep:
        ids = sequence.ids.to(self._device)
        embeds = self._model.embed_tokens(ids)
        visual, deepstack = splice(embeds, ids, sequence.source, self._config.thinker_config)
        positions, sequence.delta = self._rule.positions(sequence.ids, sequence.source.prompt.layout)
        sequence.prompt_embeds = embeds if sequence.speaks else None
        prompt = ThinkerStep(embeds, positions.to(self._device), visual, deepstack)
        return prompt.without(self._reuse(sequence, positions))

    def _reuse(self, sequence: ThinkerSequence, positions: torch.Tensor) -> int:
        """Fills the sequence with what is known of its prompt; how many tokens that is."""
        if self._known is None:
            return 0
        sequence.known = self._known.reuse(sequence.number, sequence.source, sequence.ids, positions)
        sequence.reused = sequence.known.tokens
        sequence.prompt_usage += Usage(prompt_cached_tokens=sequence.reused)
        return sequence.reused

    def _keep_accepted(self, _module: object, _args: object, output: Any) -> None:
        """The accept layer's hidden states [tokens, H], kept until the step is over."""
        self._accepted = output[0]

    def _prompts_ran(self, sequences: Sequence[ThinkerSequence], inputs: Sequence[ThinkerStep]) -> list[Outgoing]:
        """What the talker hears of the prompts that ran in this step; they are kept."""
        made: list[Outgoing] = []
        accepted, self._accepted = self._accepted, None
        start = 0
        for sequence, step in zip(sequences, inputs, strict=True):
            end = start + step.embeds.shape[0]
            if sequence.next_embed is None and accepted is not None:
                made += self._heard(sequence, accepted[start:end])
            start = end
        return made

    def _heard(self, sequence: ThinkerSequence, accepted: torch.Tensor) -> Sequence[Outgoing]:
        """The prompt as the talker hears it, `accepted` being what has just been computed of it."""
        embeds, sequence.prompt_embeds = sequence.prompt_embeds, None
        if self._known is not None and sequence.known is not None:
            self._known.keep_prompt(sequence.number, sequence.known, accepted)
            accepted = accepted if embeds is None else self._known.accepted(sequence.known, embeds, accepted)
        if embeds is None:
            return ()
        return (Emit(sequence.key, self._prefill(sequence.ids, embeds, accepted), to=("talker",)),)

    def _prefill(self, ids: torch.Tensor, embeds: torch.Tensor, accepted: torch.Tensor) -> TalkerPrefill:
        config = self._config
        media = media_of(ids, config.thinker_config)
        user = turns_of(ids, config.im_start_token_id, config.user_token_id)
        rows = torch.where(media.to(self._device)[:, None], accepted, embeds)[user.to(self._device)]
        opening = last_turn(ids, config.im_start_token_id, config.assistant_token_id)
        marks = torch.tensor([config.tts_bos_token_id, config.tts_eos_token_id, config.tts_pad_token_id])
        return TalkerPrefill(
            rows=from_torch(rows),
            spoken_media=from_torch(media[user]),
            header=from_torch(embeds[opening : opening + 3]),
            marks=from_torch(self._model.embed_tokens(marks.to(self._device))),
        )

    def _written(self, sequence: ThinkerSequence, token: int, embed: torch.Tensor) -> Sequence[Outgoing]:
        sequence.sampler.note(token)
        sequence.answer.append(token)
        sequence.generated += 1
        ended = token == self._config.im_end_token_id or sequence.is_stopped_by(token)
        if not ended and sequence.generated < sequence.max_tokens:
            text = Emit(sequence.key, TextTokens((token,)), to=("decode",))
            if not sequence.speaks:
                return (text,)
            return (text, Emit(sequence.key, SpokenTokens(from_torch(embed)), to=("talker",)))
        if self._known is not None and sequence.known is not None:
            self._known.keep_answer(sequence.number, sequence.known, sequence.answer, sequence.delta)
        finish = FinishReason.STOP if ended else FinishReason.LENGTH
        end = TextEnd(finish, sequence.prompt_usage + Usage(completion_text_tokens=sequence.generated))
        return (Emit(sequence.key, TextTokens((token,), end), to=("decode",)), Result(sequence.key, None))


def generation_defaults(folder: Path) -> Sampling:
    """What the checkpoint's generation_config.json says about sampling."""
    file = folder / "generation_config.json"
    said: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    return Sampling(**{name: said[name] for name in names if said.get(name) is not None})


def turns_of(ids: torch.Tensor, start: int, role: int) -> torch.Tensor:
    """Marks the positions of all turns of a role, from their opening mark to the next turn's."""
    places = torch.arange(len(ids))
    opening = torch.where(ids == start, places, -1).cummax(-1).values.clamp_min(0)
    return ids[(opening + 1).clamp_max(len(ids) - 1)] == role


def last_turn(ids: torch.Tensor, start: int, role: int) -> int:
    """Where the last turn of a role opens."""
    return int(((ids[:-1] == start) & (ids[1:] == role)).nonzero()[-1, 0])


def _none(step: StepInput) -> torch.Tensor:
    return torch.zeros(step.embeds.shape[0], dtype=torch.bool, device=step.embeds.device)
