"""What a stage's IO shell and its scheduler say to each other.

The shell calls `submit` and `abort` from its event loop; both return at once. The scheduler works in threads of its
own and answers through the `outbox` it was started with, in batches: everything one step produced is one call. The
shell never looks at what kind of scheduler it has.

For each request the shell says: NewRequest once; then Chunk and Done of its input streams, in order per source;
Pause and Resume as the way out fills and empties. The scheduler says: Emit for each chunk, Consumed as it takes input
chunks up (this returns their credits), and exactly one of Result and Failed, which ends the request. After abort it
says Dropped once, when nothing of the request is left, and nothing else about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from omni_common.errors import OmniError
from omni_common.request import GenerationParams, RequestKey


@dataclass(frozen=True, slots=True)
class NewRequest:
    """`payload` is the joined payload of the stage's payload edges, or None where it has only streams."""

    key: RequestKey
    params: GenerationParams
    payload: object | None


@dataclass(frozen=True, slots=True)
class Chunk:
    key: RequestKey
    source: str
    chunk: object


@dataclass(frozen=True, slots=True)
class Done:
    """The stream from `source` is complete."""

    key: RequestKey
    source: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The way out is full: make no more chunks for this request until Resume. A few that are under way may follow."""

    key: RequestKey


@dataclass(frozen=True, slots=True)
class Resume:
    key: RequestKey


Incoming = NewRequest | Chunk | Done | Pause | Resume


@dataclass(frozen=True, slots=True)
class Emit:
    """A chunk for the stages named, or for all of `stream_to`; for the caller where the stage is terminal."""

    key: RequestKey
    chunk: object
    to: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Consumed:
    key: RequestKey
    source: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """The request is done here. `value` is projected onto each payload edge; at a terminal stage it is a
    TerminalResult (without reports). Open streams out are closed after the last Emit."""

    key: RequestKey
    value: object | None


@dataclass(frozen=True, slots=True)
class Failed:
    key: RequestKey
    error: OmniError


@dataclass(frozen=True, slots=True)
class Dropped:
    key: RequestKey


Outgoing = Emit | Consumed | Result | Failed | Dropped
Outbox = Callable[[Sequence[Outgoing]], None]


@dataclass(frozen=True, slots=True)
class Load:
    running: int
    waiting: int


class Scheduler(Protocol):
    """Decides what runs next in a stage."""

    def start(self, outbox: Outbox) -> None:
        """Starts the scheduler's threads; `outbox` may be called from any of them."""

    def stop(self) -> None:
        """Ends the threads; waits for the step under way. Requests still alive get no answer."""

    def submit(self, item: Incoming) -> None: ...

    def abort(self, key: RequestKey) -> None:
        """Drops the request at the next step boundary. Idempotent; answers Dropped also for an unknown request."""

    def load(self) -> Load: ...

    def last_step(self) -> float:
        """When the loop last came round, in seconds of time.monotonic: the heartbeat behind liveness."""
