"""Who this replica is, to its coordinators and its peers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """`address` is where its StageService can be reached; replicas of one pod share an arena
    and a relay, whose host:port is empty where there is none."""

    pipeline: str
    stage: str
    replica: str
    pod: str
    node: str
    address: str
    capacity: int
    relay: str = ""
