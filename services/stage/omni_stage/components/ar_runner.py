"""What model runners share: the sequences by key, one packed forward per step, and two hooks around it.

A model says what a sequence feeds into its next step (`before`), how a packed batch runs (`forward`) and what the
last hidden state of each sequence becomes (`after`). See `scheduler.ar_contract` for the caller's side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from omni_common.request import RequestKey
from omni_stage.components.attention import Packed, Span
from omni_stage.components.kv_cache import KvStore
from omni_stage.components.prefix_cache import PrefixCache
from omni_stage.components.sampler import Sampler
from omni_stage.scheduler.ar_contract import Batch, CacheUse
from omni_stage.scheduler.contract import Consumed, NewRequest, Outgoing


@dataclass(slots=True, kw_only=True, eq=False)
class ArSequence:
    """One request in an autoregressive stage. A model's runner adds its own fields.

    `expected` tokens are what its cache is made for at first; `number` is its name in the store; `reused` tokens of its
    prompt were kept from earlier requests.
    """

    key: RequestKey
    expected: int
    sampler: Sampler
    max_tokens: int
    generated: int = 0
    number: int = field(default=-1, init=False)
    reused: int = field(default=0, init=False)


@dataclass(frozen=True, slots=True)
class StepInput:
    """New tokens of one sequence: embeddings [n, width] and positions [axes, n]."""

    embeds: torch.Tensor
    positions: torch.Tensor


S = TypeVar("S", bound=ArSequence)
I = TypeVar("I", bound=StepInput)  # noqa: E741  (the input of a step, as S is the sequence)


class ArRunner(ABC, Generic[S, I]):
    """A ModelRunner over packed batches. Everything runs in the scheduler's thread, in inference mode."""

    def __init__(self, store: KvStore, prefixes: PrefixCache | None = None) -> None:
        self._store = store
        self._prefixes = prefixes
        self._numbers = count()
        self._sequences: dict[RequestKey, S] = {}
        self._consumed: dict[tuple[RequestKey, str], int] = {}
        self._prompt_tokens = 0
        self._reused_tokens = 0

    @abstractmethod
    def make(self, request: NewRequest) -> S:
        """The sequence of a new request. Raises OmniError when it cannot be served."""

    @abstractmethod
    def before(self, sequence: S) -> I | None:
        """What the sequence feeds into this step; None when it ends without one, `end` says how."""

    @abstractmethod
    def forward(self, inputs: Sequence[I], packed: Packed) -> torch.Tensor:
        """Runs the packed batch; the hidden states of all its tokens, [tokens, width]."""

    @abstractmethod
    def after(self, sequences: Sequence[S], inputs: Sequence[I], hidden: torch.Tensor) -> Sequence[Outgoing]:
        """What the step made. `hidden` has the packed batch's rows; `last_rows` picks each sequence's last."""

    def end(self, sequence: S) -> Sequence[Outgoing]:
        """The last words of a sequence that had nothing to step for."""
        raise NotImplementedError(f"{type(self).__name__} has no sequences that end without a step")

    def take(self, sequence: S, source: str, chunk: object) -> None:
        """One chunk of an input stream."""
        raise NotImplementedError(f"{type(self).__name__} takes no chunks")

    def finish_input(self, sequence: S, source: str) -> None:
        """The input stream is complete."""

    def can_step(self, sequence: S) -> bool:
        return True

    def open(self, request: NewRequest) -> None:
        with torch.inference_mode():
            sequence = self.make(request)
        sequence.number = next(self._numbers)
        self._store.open(sequence.number, sequence.expected)
        self._sequences[request.key] = sequence

    def feed(self, key: RequestKey, source: str, chunk: object) -> None:
        """Chunks count as consumed when they arrive: they are few and small beside the cache, and a sequence whose
        reader is slow must not hold up its writer, which writes to others too."""
        with torch.inference_mode():
            self.take(self._sequences[key], source, chunk)
        self._consumed[key, source] = self._consumed.get((key, source), 0) + 1

    def close_input(self, key: RequestKey, source: str) -> None:
        self.finish_input(self._sequences[key], source)

    def ready(self, key: RequestKey) -> bool:
        return self.can_step(self._sequences[key])

    def execute(self, batch: Batch) -> Sequence[Outgoing]:
        made: list[Outgoing] = [Consumed(key, source, n) for (key, source), n in self._consumed.items()]
        self._consumed.clear()
        sequences: list[S] = []
        inputs: list[I] = []
        with torch.inference_mode():
            for sequence in (self._sequences[key] for key in (*batch.prefill, *batch.decode)):
                step = self.before(sequence)
                if step is None:
                    made += self.end(sequence)
                else:
                    sequences.append(sequence)
                    inputs.append(step)
            begun = [(s, i) for s, i in zip(sequences, inputs, strict=True) if s.key in batch.prefill]
            self._prompt_tokens = sum(i.embeds.shape[0] for _, i in begun)
            self._reused_tokens = sum(s.reused for s, _ in begun)
            if sequences:
                spans = [Span(s.number, i.embeds.shape[0]) for s, i in zip(sequences, inputs, strict=True)]
                made += self.after(sequences, inputs, self.forward(inputs, Packed(self._store, spans)))
        return made

    @property
    def prompt_tokens(self) -> int:
        return self._prompt_tokens

    @property
    def reused_tokens(self) -> int:
        return self._reused_tokens

    def cache_use(self) -> CacheUse:
        tokens = sum(self._store.length(sequence.number) for sequence in self._sequences.values())
        return CacheUse(tokens, self._store.size, 0 if self._prefixes is None else self._prefixes.size)

    def close(self, key: RequestKey) -> None:
        sequence = self._sequences.pop(key, None)
        if sequence is not None:
            self._store.free(sequence.number)
        for consumed in [k for k in self._consumed if k[0] == key]:
            del self._consumed[consumed]


def last_rows(inputs: Sequence[StepInput], hidden: torch.Tensor) -> torch.Tensor:
    """The hidden state of each sequence's newest token."""
    ends = torch.tensor([i.embeds.shape[0] for i in inputs]).cumsum(0) - 1
    return hidden[ends.to(hidden.device)]


def run_packed(model: nn.Module, inputs: Sequence[StepInput], packed: Packed, **extra: Any) -> torch.Tensor:
    """One forward of a transformers text model made with `attn_implementation=PACKED`."""
    output = model(
        inputs_embeds=torch.cat([i.embeds for i in inputs])[None],
        position_ids=torch.cat([i.positions for i in inputs], dim=1)[:, None],
        use_cache=False,  # the store has the caches
        packed=packed,
        **extra,
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden
