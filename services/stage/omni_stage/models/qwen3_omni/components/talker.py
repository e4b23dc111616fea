"""The talker: hears the prompt and the text as it is made, and speaks codec frames of 80 ms.

It starts after the first text token and takes one more per frame; when the text has ended it is given an end mark and
then padding. A frame's first code comes from the talker, the others from the code predictor, inside the same step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import DynamicCache
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

from omni_common.errors import Internal
from omni_common.tensor import Tensor
from omni_stage.components.ar_runner import ArRunner, ArSequence, StepInput, last_rows, run_packed
from omni_stage.components.attention import PACKED, Packed
from omni_stage.components.kv_cache import KvStore
from omni_stage.components.sampler import Sampler, sample
from omni_stage.components.tensors import from_torch, to_torch
from omni_stage.models.qwen3_omni.components.position import PositionRule
from omni_stage.models.qwen3_omni.components.thinker import turns_of
from omni_stage.models.qwen3_omni.components.weights import Weights
from omni_stage.models.qwen3_omni.payload_types import (
    CodecFrames,
    Layout,
    SpokenTokens,
    TalkerPrefill,
    TalkerPrompt,
    expect,
)
from omni_stage.models.qwen3_omni.request_builders import predictor_sampling, talker_sampling, voice_of
from omni_stage.scheduler.contract import Emit, NewRequest, Outgoing, Result

PREFIX = "talker."
_SPECIAL_CODES = 1024  # the last ids of the first codebook's vocabulary: marks and voices, never to be spoken


@dataclass(slots=True, kw_only=True, eq=False)
class TalkerSequence(ArSequence):
    layout: Layout
    voice: int
    residual: Sampler  # for the code predictor; shares the random numbers of `sampler`
    prefill: TalkerPrefill | None = None
    text: deque[torch.Tensor] = field(default_factory=deque)  # projected embeddings of tokens not spoken yet
    text_ended: bool = False
    end_marked: bool = False
    length: int = 0  # of the prompt
    delta: int = 0
    frame: torch.Tensor | None = None  # the sum of the last frame's code embeddings; None before the prompt has run
    end_mark: torch.Tensor | None = None
    padding: torch.Tensor | None = None


class TalkerRunner(ArRunner[TalkerSequence, StepInput]):
    """Runs the talker and the code predictor of one checkpoint."""

    def __init__(self, weights: Weights, store: KvStore) -> None:
        super().__init__(store)
        self._config = weights.config
        self._talker = weights.config.talker_config
        self._device = weights.device
        self._dtype = weights.dtype
        talker, checkpoint, dtype = self._talker, weights.checkpoint, weights.dtype
        self._model: Any = checkpoint.module(
            lambda: modeling.Qwen3OmniMoeTalkerModel._from_config(
                talker.text_config, dtype=dtype, attn_implementation=PACKED
            ),
            f"{PREFIX}model.",
        )
        self._predictor = CodePredictor(weights)
        self._head = checkpoint.tensors[f"{PREFIX}codec_head.weight"]
        self._of_text: Any = checkpoint.module(
            lambda: modeling.Qwen3OmniMoeTalkerResizeMLP(talker), f"{PREFIX}text_projection."
        )
        self._of_media: Any = checkpoint.module(
            lambda: modeling.Qwen3OmniMoeTalkerResizeMLP(talker), f"{PREFIX}hidden_projection."
        )
        self._rule = PositionRule(talker, weights.config.thinker_config.audio_config, talker.spatial_merge_size)
        vocabulary = talker.text_config.vocab_size
        special = range(vocabulary - _SPECIAL_CODES, vocabulary)
        self._suppress = torch.tensor([c for c in special if c != talker.codec_eos_token_id], device=self._device)

    def make(self, request: NewRequest) -> TalkerSequence:
        settings = talker_sampling(request.params)
        sampler = Sampler(settings, device=self._device)
        limit = settings.max_tokens or 1
        layout = expect(request.payload, TalkerPrompt).layout
        voices = self._talker.speaker_id
        return TalkerSequence(
            key=request.key,
            expected=layout.ids.shape[0] + 256,
            sampler=sampler,
            max_tokens=limit,
            layout=layout,
            voice=voices[voice_of(request.params, voices)],
            residual=Sampler(predictor_sampling(settings), generator=sampler.generator),
        )

    def take(self, sequence: TalkerSequence, source: str, chunk: object) -> None:
        if isinstance(chunk, TalkerPrefill):
            sequence.prefill = chunk
        else:
            sequence.text.extend(self._of_text(self._read(expect(chunk, SpokenTokens).embeddings)))

    def finish_input(self, sequence: TalkerSequence, source: str) -> None:
        sequence.text_ended = True

    def can_step(self, sequence: TalkerSequence) -> bool:
        return bool(sequence.text) or sequence.text_ended

    def before(self, sequence: TalkerSequence) -> StepInput | None:
        if sequence.frame is None:
            return self._prompt(sequence) if sequence.text else None
        position = sequence.length + sequence.generated - 1 + sequence.delta
        return StepInput(
            (sequence.frame + self._next_text(sequence))[None],
            torch.full((3, 1), position, dtype=torch.float32, device=self._device),
        )

    def end(self, sequence: TalkerSequence) -> Sequence[Outgoing]:
        """A reply of one token, its end mark, has nothing to speak."""
        return (Result(sequence.key, None),)

    def forward(self, inputs: Sequence[StepInput], packed: Packed) -> torch.Tensor:
        return run_packed(self._model, inputs, packed)

    def after(
        self, sequences: Sequence[TalkerSequence], inputs: Sequence[StepInput], hidden: torch.Tensor
    ) -> Sequence[Outgoing]:
        last = last_rows(inputs, hidden)
        chosen = sample(linear(last, self._head), [s.sampler for s in sequences], suppress=self._suppress)
        made: list[Outgoing] = []
        speaking: list[int] = []
        for row, (sequence, code) in enumerate(zip(sequences, chosen.tolist(), strict=True)):
            sequence.sampler.note(code)
            sequence.generated += 1
            if code == self._talker.codec_eos_token_id or sequence.generated >= sequence.max_tokens:
                made.append(Result(sequence.key, None))
            else:
                speaking.append(row)
        if speaking:
            made += self._speak([sequences[row] for row in speaking], last[speaking], chosen[speaking])
        return made

    def _speak(
        self, sequences: Sequence[TalkerSequence], hidden: torch.Tensor, first: torch.Tensor
    ) -> Sequence[Outgoing]:
        """Completes a frame of each sequence, in lockstep."""
        embeds = self._model.codec_embedding(first)
        codes, summed = self._predictor.complete(hidden, embeds, first, [s.residual for s in sequences])
        frames = codes.to(torch.int16).cpu()
        made: list[Outgoing] = []
        for row, sequence in enumerate(sequences):
            sequence.frame = summed[row]
            made.append(Emit(sequence.key, CodecFrames(from_torch(frames[row : row + 1]))))
        return made

    def _prompt(self, sequence: TalkerSequence) -> StepInput:
        """The user's turns, then the assistant's opening with the first token to be spoken."""
        heard, config = sequence.prefill, self._talker
        if heard is None:
            raise Internal("The talker was sent text before the prompt.")
        begin, sequence.end_mark, sequence.padding = self._of_text(self._read(heard.marks))
        header = self._of_text(self._read(heard.header))
        first = sequence.text.popleft()[None]
        text = torch.cat([header, sequence.padding.expand(4, -1), begin[None], first])
        marks = [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id]
        marks += [sequence.voice, config.codec_pad_id, config.codec_bos_id]
        opening = text.clone()
        opening[3:] += self._model.codec_embedding(torch.tensor(marks, device=self._device))
        embeds = torch.cat([self._rows(heard), opening])
        ids = to_torch(sequence.layout.ids)
        user = ids[turns_of(ids, self._config.im_start_token_id, self._config.user_token_id)]
        ids = torch.cat([user, torch.full((len(opening),), self._config.tts_pad_token_id)])
        positions, sequence.delta = self._rule.positions(ids, sequence.layout)
        sequence.length = len(ids)
        sequence.prefill = None
        return StepInput(embeds, positions.to(self._device))

    def _rows(self, heard: TalkerPrefill) -> torch.Tensor:
        rows, media = self._read(heard.rows), to_torch(heard.spoken_media, self._device)
        projected: torch.Tensor = self._of_text(rows)
        if media.any():
            projected[media] = self._of_media(rows[media])
        return projected

    def _read(self, tensor: Tensor) -> torch.Tensor:
        """The thinker may compute in another element type."""
        return to_torch(tensor, self._device).to(self._dtype)

    def _next_text(self, sequence: TalkerSequence) -> torch.Tensor:
        """The text that goes with the next frame: a token, once the end mark, then padding for ever."""
        if sequence.text:
            return sequence.text.popleft()
        mark = sequence.padding if sequence.end_marked else sequence.end_mark
        sequence.end_marked = True
        if mark is None:
            raise Internal("The talker went on speaking before its prompt had run.")
        return mark


class CodePredictor:
    """Makes the residual codes of one frame for each row of a batch, one code group after another."""

    def __init__(self, weights: Weights) -> None:
        config = weights.config.talker_config.code_predictor_config
        prefix = f"{PREFIX}code_predictor."
        self._config = config
        self._model: Any = weights.checkpoint.module(
            lambda: modeling.Qwen3OmniMoeTalkerCodePredictorModel._from_config(config, dtype=weights.dtype),
            f"{prefix}model.",
        )
        groups = weights.config.talker_config.num_code_groups
        self._heads = [weights.checkpoint.tensors[f"{prefix}lm_head.{i}.weight"] for i in range(groups - 1)]

    def complete(
        self, hidden: torch.Tensor, embeds: torch.Tensor, first: torch.Tensor, samplers: Sequence[Sampler]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From the talker's hidden states and first codes [n]: all codes [n, G] and their summed embeddings [n, H]."""
        cache = DynamicCache(config=self._config)
        step = torch.stack([hidden, embeds], dim=1)
        codes, parts = [first], [embeds]
        for group, head in enumerate(self._heads):
            output = self._model(inputs_embeds=step, past_key_values=cache, use_cache=True)
            code = sample(linear(output.last_hidden_state[:, -1], head), samplers)
            part = self._model.codec_embedding[group](code)
            codes.append(code)
            parts.append(part)
            step = part[:, None]
        return torch.stack(codes, dim=1), torch.stack(parts, dim=1).sum(1)
