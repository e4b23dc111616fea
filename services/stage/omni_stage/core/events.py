"""What happens to a request in a stage, and what the stage does about it.

Events carry `now` where a time is noted: seconds since the request's admission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni_common.errors import OmniError
from omni_common.request import StageReport

CALLER = ""
"""The target of a terminal stage's chunks, where other stages have the name of the next stage."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """The envelope has come, so the request may take part."""

    now: float


@dataclass(frozen=True, slots=True)
class PayloadArrived:
    source: str
    payload: object
    reports: Sequence[StageReport]
    now: float


@dataclass(frozen=True, slots=True)
class ChunkArrived:
    source: str
    index: int
    chunk: object
    now: float


@dataclass(frozen=True, slots=True)
class DoneArrived:
    source: str
    chunks: int
    reports: Sequence[StageReport]
    now: float


@dataclass(frozen=True, slots=True)
class CreditGranted:
    """The way to `target` (CALLER at a terminal stage) has room for that many more chunks."""

    target: str
    chunks: int
    now: float


@dataclass(frozen=True, slots=True)
class Emitted:
    chunk: object
    to: tuple[str, ...] | None
    now: float


@dataclass(frozen=True, slots=True)
class InputConsumed:
    source: str
    count: int


@dataclass(frozen=True, slots=True)
class Finished:
    value: object | None
    now: float


@dataclass(frozen=True, slots=True)
class FailedHere:
    error: OmniError


@dataclass(frozen=True, slots=True)
class Delivered:
    """Nothing that was sent is under way any more."""


@dataclass(frozen=True, slots=True)
class SendLost:
    """Something that was sent cannot arrive."""

    error: OmniError


@dataclass(frozen=True, slots=True)
class AbortAsked:
    """By the owning coordinator, or in its place when it is gone or the deadline has passed."""


@dataclass(frozen=True, slots=True)
class SchedulerDropped:
    pass


Event = (
    Introduced
    | PayloadArrived
    | ChunkArrived
    | DoneArrived
    | CreditGranted
    | Emitted
    | InputConsumed
    | Finished
    | FailedHere
    | Delivered
    | SendLost
    | AbortAsked
    | SchedulerDropped
)


@dataclass(frozen=True, slots=True)
class Begin:
    """Hand the request to the scheduler."""

    payload: object | None


@dataclass(frozen=True, slots=True)
class PassChunk:
    source: str
    chunk: object


@dataclass(frozen=True, slots=True)
class PassDone:
    source: str


@dataclass(frozen=True, slots=True)
class PauseScheduler:
    pass


@dataclass(frozen=True, slots=True)
class ResumeScheduler:
    pass


@dataclass(frozen=True, slots=True)
class AbortScheduler:
    pass


@dataclass(frozen=True, slots=True)
class SendPayload:
    target: str
    payload: object
    reports: tuple[StageReport, ...]


@dataclass(frozen=True, slots=True)
class SendChunk:
    """To the next stage, or to the caller by way of the coordinator."""

    target: str
    index: int
    chunk: object


@dataclass(frozen=True, slots=True)
class SendDone:
    target: str
    chunks: int
    reports: tuple[StageReport, ...]


@dataclass(frozen=True, slots=True)
class SendCompleted:
    """The terminal stage's own result, to the coordinator."""

    value: object | None
    reports: tuple[StageReport, ...]


@dataclass(frozen=True, slots=True)
class SendFailed:
    error: OmniError


@dataclass(frozen=True, slots=True)
class ReturnCredit:
    source: str
    chunks: int


@dataclass(frozen=True, slots=True)
class AwaitDelivery:
    """Say Delivered when nothing of the request is under way, at once if so."""


@dataclass(frozen=True, slots=True)
class AckAbort:
    pass


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing more is expected for this request; late events meet its tombstone."""


Command = (
    Begin
    | PassChunk
    | PassDone
    | PauseScheduler
    | ResumeScheduler
    | AbortScheduler
    | SendPayload
    | SendChunk
    | SendDone
    | SendCompleted
    | SendFailed
    | ReturnCredit
    | AwaitDelivery
    | AckAbort
    | Forget
)
