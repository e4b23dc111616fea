"""What the autoregressive scheduler and a model runner say to each other.

The scheduler decides which requests step; it sees keys and counts, never a tensor. The runner holds the sequences
and runs the model; it never decides. All calls come from the scheduler's one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from omni_common.request import RequestKey
from omni_stage.scheduler.contract import NewRequest, Outgoing


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: the requests whose prompt is run now, and those that get one more token."""

    prefill: tuple[RequestKey, ...]
    decode: tuple[RequestKey, ...]


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a runner's keys and values take: tokens, and bytes with room to grow; `kept` are the bytes of those that are
    kept for requests to come."""

    tokens: int = 0
    size: int = 0
    kept: int = 0


class ModelRunner(Protocol):
    """Runs the model for a batch of sequences that it holds by key."""

    def open(self, request: NewRequest) -> None:
        """Makes the sequence. Raises OmniError when the request cannot be served (prompt too long, say).

        Called when the request is admitted, which may be long before its first step: a cache is made by that step.
        """

    def feed(self, key: RequestKey, source: str, chunk: object) -> None:
        """Adds one chunk of an input stream."""

    def close_input(self, key: RequestKey, source: str) -> None:
        """The input stream is complete."""

    def ready(self, key: RequestKey) -> bool:
        """Whether the sequence has all the input that its next step needs. Cheap: asked of each before each step."""

    def execute(self, batch: Batch) -> Sequence[Outgoing]:
        """One step; a prompt in `prefill` gets its first token too.

        Returns Emit, Consumed, and Result or Failed for the sequences that ended; those may be closed already.
        An exception that is not an OmniError of one sequence fails the whole batch.
        """

    @property
    def prompt_tokens(self) -> int:
        """How many tokens of prompts the last `execute` ran."""

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the same prompts it had kept from earlier requests."""

    def cache_use(self) -> CacheUse:
        """Of all sequences. Cheap: asked after each step."""

    def close(self, key: RequestKey) -> None:
        """Forgets the sequence and frees its cache. Idempotent."""


class NoCaches:
    """What a runner says that holds no keys and values."""

    @property
    def prompt_tokens(self) -> int:
        return 0

    @property
    def reused_tokens(self) -> int:
        return 0

    def cache_use(self) -> CacheUse:
        return CacheUse()
