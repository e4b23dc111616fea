"""Pure: what one run stands on: its folders, its addresses, the shared memory of its pods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omni_cli.errors import LaunchFailed
from omni_common.component import Component

MIB = 1 << 20
# Of the shared memory, for each stage and once more for each pod, whose relay lends that to other pods.
SHARE = 64 * MIB
LEAST_SHARE = 16 * MIB  # the least that a relay grants at once


class Addresses(Protocol):
    """The loopback addresses of one run; all but `pod` are host:port."""

    def pod(self, index: int) -> str: ...

    def relay(self, index: int) -> str:
        """Of the pod with this index."""

    def coordinator(self, index: int) -> str: ...

    def metrics(self, index: int) -> str:
        """Of the process with this index in the plan."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What a placement group's processes share; `relay` is host:port for other pods, `arena` is in bytes."""

    name: str
    pipeline: str
    host: str
    relay: str
    folder: Path
    arena: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How large a mesh is."""

    stages: int
    pods: int
    coordinators: int

    @property
    def processes(self) -> int:
        """At most: a relay for each pod, one gateway, and a process for each stage, though several may share one."""
        return self.stages + self.pods + self.coordinators + 1

    @property
    def shares(self) -> int:
        """Of the shared memory."""
        return self.stages + self.pods


@dataclass(frozen=True, slots=True)
class Ground:
    """Where one run lives: its folders, its addresses, and its share of shared memory in bytes."""

    run: Path
    arenas: Path
    addresses: Addresses
    share: int = SHARE

    @property
    def token(self) -> Path:
        """What relays prove to each other that they know."""
        return self.run / "token"

    @property
    def authority(self) -> Path:
        """The certificate that all of this run's others are signed by."""
        return self.run / "ca.pem"

    def certificate_of(self, pod: Pod) -> Path:
        return self.run / f"{pod.name}.pem"

    def key_of(self, pod: Pod) -> Path:
        return self.run / f"{pod.name}.key"

    def certificate_for(self, component: Component) -> Path:
        """For gRPC; all processes of the component show the same one."""
        return self.run / f"{component}.pem"

    def key_for(self, component: Component) -> Path:
        return self.run / f"{component}.key"

    def file_of(self, pipeline: str) -> Path:
        """Where it is written for its stages and the coordinators to read."""
        return self.run / f"{pipeline}.json"


def share_of(room: int, counts: Counts, wished: int) -> int:
    """The bytes of a share where `room` bytes are for all of them: what is wished, or what fits in whole MiB.

    Raises LaunchFailed when that is too little to work with.
    """
    fits = room // counts.shares // MIB * MIB
    if fits < LEAST_SHARE:
        need, have = counts.shares * LEAST_SHARE // MIB, room // MIB
        raise LaunchFailed(f"The arenas of this mesh need {need} MiB at least; there is room for {have} MiB.")
    return min(wished, fits)
