"""A request that has lost a replica: how that is told, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omni_common.errors import OmniError, Reason
from omni_coordinator.core.events import Bound, Command, Event, ReplicaLost, StageFailed
from omni_coordinator.core.request import Request, replica_lost


class Failover(StrEnum):
    """What became of a request that had lost a replica."""

    RERUN = "rerun"
    """It began again; the caller had nothing yet."""
    RESUMED = "resumed"
    """It began again, made what the caller had, and went on."""
    DIVERGED = "diverged"
    """It began again and made something else."""
    INTERRUPTED = "interrupted"
    """It began again and ended otherwise before it had made what the caller had."""
    NO_REPLICA = "no_replica"
    """No complete set of ready replicas was left."""
    EXHAUSTED = "exhausted"
    """It had as many attempts as it may have."""
    NOT_KEPT = "not_kept"
    """It, or what the caller had of it, was more than may be kept."""


@dataclass(frozen=True, slots=True)
class Rebound:
    """The replicas of the next attempt."""

    bound: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Unbound:
    """There can be no next attempt."""

    why: Failover


@dataclass(frozen=True, slots=True)
class Rebind:
    """Asks for ready replicas other than these; Rebound or Unbound answers."""

    without: frozenset[int]


@dataclass(frozen=True, slots=True)
class FailedOver:
    """For the record: `stage` had lost its replica."""

    stage: str
    outcome: Failover


Step = tuple[int, Command | Rebind | FailedOver]
"""A command, and the attempt that it is about."""


@dataclass(frozen=True, slots=True)
class Loss:
    stage: str
    error: OmniError
    replica: int | None
    """Who is not to be used again, where that is known."""
    gone: bool
    """Whether it hears nothing any more."""


def loss_in(event: Event, request: Request) -> Loss | None:
    """None where the event tells of none that matters to the attempt."""
    bound = request.bound
    match event:
        case ReplicaLost(replica) if replica in bound and not request.is_done(replica):
            stage = bound[replica].stage
            return Loss(stage, replica_lost(stage), replica, gone=True)
        case StageFailed(replica, error) if replica in bound and error.reason is Reason.STAGE_UNAVAILABLE:
            # A neighbour may notice it before this coordinator does, and names the stage then.
            suspects = [number for number, at in bound.items() if at.stage == error.stage]
            stage = bound[suspects[0]].stage if suspects else bound[replica].stage
            return Loss(stage, error, suspects[0] if suspects else None, gone=False)
        case _:
            return None
