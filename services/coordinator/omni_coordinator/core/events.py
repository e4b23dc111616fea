"""What happens to an attempt at a request, and what the coordinator does about it."""

from __future__ import annotations

from dataclasses import dataclass

from omni_common.errors import OmniError
from omni_common.request import FinishReason, Modality, Output, StageReport, TerminalResult, Usage


@dataclass(frozen=True, slots=True)
class Bound:
    """One stage of a request and the replica that serves it; `terminal` is what that stage sends to the caller."""

    stage: str
    replica: int
    terminal: Modality | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    finish_reason: FinishReason
    usage: Usage
    reports: tuple[StageReport, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The request is admitted and bound; the stages may send `output_credits` of each kind."""

    output_credits: int


@dataclass(frozen=True, slots=True)
class OutputMade:
    replica: int
    index: int
    output: Output


@dataclass(frozen=True, slots=True)
class OutputRead:
    """The caller has room for that many more outputs of each kind."""

    text: int = 0
    audio: int = 0


@dataclass(frozen=True, slots=True)
class TerminalDone:
    replica: int
    result: TerminalResult


@dataclass(frozen=True, slots=True)
class StageFailed:
    replica: int
    error: OmniError


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    replica: int


@dataclass(frozen=True, slots=True)
class CallerGone:
    pass


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    pass


@dataclass(frozen=True, slots=True)
class Stopping:
    """The coordinator ends before the request does."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another attempt takes the place of this one, which has lost a replica if that is known to be gone."""

    lost: int | None = None


@dataclass(frozen=True, slots=True)
class AbortAcked:
    replica: int


@dataclass(frozen=True, slots=True)
class AbortTimedOut:
    pass


Event = (
    Started
    | OutputMade
    | OutputRead
    | TerminalDone
    | StageFailed
    | ReplicaLost
    | CallerGone
    | DeadlinePassed
    | Stopping
    | Superseded
    | AbortAcked
    | AbortTimedOut
)


@dataclass(frozen=True, slots=True)
class Dispatch:
    replica: int


@dataclass(frozen=True, slots=True)
class SendOutput:
    index: int
    output: Output


@dataclass(frozen=True, slots=True)
class GrantOutput:
    replica: int
    text: int
    audio: int


@dataclass(frozen=True, slots=True)
class Finish:
    finished: Finished


@dataclass(frozen=True, slots=True)
class Fail:
    error: OmniError


@dataclass(frozen=True, slots=True)
class AbortReplica:
    replica: int


@dataclass(frozen=True, slots=True)
class Release:
    """Nothing of the request is left; `unanswered` replicas did not say so in time."""

    unanswered: frozenset[int] = frozenset()


Command = Dispatch | SendOutput | GrantOutput | Finish | Fail | AbortReplica | Release
