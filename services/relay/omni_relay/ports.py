"""What the relay's parts ask of each other. Each side sees the other only through these; all of it is thread-safe.

stages of the pod ⇄ StageServer ──Pushers──▶ Outbound ⇄ other relays
stages of the pod ⇄ StageServer ◀─Consumers─ Inbound  ⇄ other relays
                         Space (who has which extent) serves both sides
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from omni_common.arena.extents import Extent
from omni_common.errors import OmniError
from omni_common.request import RequestKey


@dataclass(frozen=True, slots=True)
class Transfer:
    """One tensor on its way between pods: the producing process's random number, and its count."""

    source: int
    number: int


@dataclass(frozen=True, slots=True)
class PushOrder:
    """A slot's bytes to be moved. `data` is a view of the arena, valid until `ended` is called; `deadline` is on the
    monotonic clock; `generation` is the slot's, for checks."""

    transfer: Transfer
    data: memoryview
    to: str
    consumer: str
    key: RequestKey
    deadline: float
    edge: str


@dataclass(frozen=True, slots=True)
class PushResult:
    """How a push ended: `error` is None when the consumer has the tensor. `transport` as metrics name it."""

    error: OmniError | None
    transport: str


class Pushers(Protocol):
    """The way out to other pods."""

    def submit(self, order: PushOrder, ended: Callable[[PushResult], None]) -> None:
        """Never raises for what the network does; `ended` is called exactly once, from any thread, must not block."""

    def cancel(self, transfer: Transfer) -> None:
        """The push ends soon with CANCELLED, unless it has ended. Unknown ones are ignored."""


@dataclass(frozen=True, slots=True)
class ArrivedTensor:
    """A complete, verified tensor in a leased slot."""

    transfer: Transfer
    extent: Extent
    offset: int
    generation: int
    length: int
    key: RequestKey


class Consumers(Protocol):
    """The stages of this pod, by their replica names."""

    def knows(self, consumer: str) -> bool:
        """Whether that stage is connected now."""

    def deliver(self, consumer: str, arrived: ArrivedTensor) -> bool:
        """Hands the tensor over; it is in the stage's socket when this returns True. False: the stage is not there,
        and the slot is the caller's again. From then on Space tells the grantee when it is freed."""


class Grantee(Protocol):
    """A peer that allocates in extents of this arena. Called from any thread; must not block."""

    def granted(self, extent: Extent) -> None: ...

    def refused(self, size: int) -> None:
        """There can never be that much."""

    def freed(self, extent: int, offset: int) -> None:
        """The consumer has released the slot whose bytes begin there."""


class Space(Protocol):
    """The arena's extents."""

    def join(self, peer: str, grantee: Grantee) -> None:
        """`peer` is unique per connection."""

    def want(self, peer: str, size: int) -> None:
        """Answered by `granted`, now or when there is room, or `refused`. One at a time per peer."""

    def give_back(self, peer: str, extent: int) -> None:
        """The peer has nothing in it any more. An extent that is not its own, or in which slots are leased, is
        ignored and logged."""

    def leave(self, peer: str) -> None:
        """The connection is gone: no `freed` any more; its extents come back when their delivered slots are
        released. What it had begun and not delivered is no longer written."""
