"""Two pods on this machine, each with a relay of its own, as `omni up` starts them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from omni_cli.errors import LaunchFailed
from omni_cli.launcher.credentials import write_certificates, write_token
from omni_cli.launcher.folders import base_folder, run_folders
from omni_cli.launcher.ground import MIB, Counts, Ground, Pod
from omni_cli.launcher.logs import log_of
from omni_cli.launcher.network import choose_addresses
from omni_cli.launcher.plan import ProcessSpec, Wishes, relay_of
from omni_cli.launcher.preload import preloads
from omni_cli.launcher.processes import open_starters
from omni_cli.launcher.supervisor import Ended, Supervisor, supervised
from omni_cli.settings import CommandSettings
from omni_common.clock import monotonic

_NAMES = ("here", "there")
_GRACE = 5.0
# What a relay grants at once is a multiple of this.
_GRANT = 16 * MIB
# The part of the receiving arena that is for other pods.
_INBOUND = 0.8


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod, and its relay: the process and its log."""

    pod: Pod
    relay: str
    log: Path
    _supervisor: Supervisor

    @property
    def pid(self) -> int:
        """Raises LaunchFailed when the relay does not run."""
        try:
            return self._supervisor.running()[self.relay]
        except KeyError:
            raise LaunchFailed("A relay ended in the middle.") from None


@asynccontextmanager
async def two_pods(wishes: Wishes, largest: int, *, checksums: bool) -> AsyncIterator[tuple[RunningPod, RunningPod]]:
    """One with room for a tensor of `largest` bytes, one with room for two from the other; their relays run inside and
    log each transfer. Raises CommandError, bare or grouped."""
    counts = Counts(stages=0, pods=len(_NAMES), coordinators=0)
    arenas = _arenas(largest)
    with run_folders(base_folder(CommandSettings().runtime_dir), sum(arenas)) as folders:
        if folders.room < sum(arenas):
            raise LaunchFailed(f"Arenas of {sum(arenas) // MIB} MiB in all have no room here; give smaller --sizes.")
        ground = Ground(folders.run, folders.arenas, choose_addresses(counts))
        pods = [_pod(ground, i, name, arena) for i, (name, arena) in enumerate(zip(_NAMES, arenas, strict=True))]
        write_token(ground)
        write_certificates(ground, pods)
        specs = _relays(pods, wishes, ground, checksums=checksums)
        async with open_starters(preloads(()), folders.logs) as starters:
            supervisor = Supervisor(starters, logs=folders.logs, report=_ignored, clock=monotonic, grace=_GRACE)
            async with supervised(supervisor, specs):
                here, there = (
                    RunningPod(pod, spec.name, log_of(folders.logs, spec.name), supervisor)
                    for pod, spec in zip(pods, specs, strict=True)
                )
                yield here, there


def _arenas(largest: int) -> tuple[int, int]:
    """Bytes of each. A tensor that arrives must not wait for the room of the one before it, or that is what is
    measured."""
    grant = (largest // _GRANT + 1) * _GRANT
    return grant + _GRANT, ceil(2 * grant / _INBOUND / _GRANT + 1) * _GRANT


def _pod(ground: Ground, index: int, name: str, arena: int) -> Pod:
    addresses = ground.addresses
    pod = Pod(name, "bench", addresses.pod(index), addresses.relay(index), ground.arenas / name, arena)
    pod.folder.mkdir()
    return pod


def _relays(pods: Sequence[Pod], wishes: Wishes, ground: Ground, *, checksums: bool) -> list[ProcessSpec]:
    both = {"LOG_LEVEL": "DEBUG", "CHECKSUMS": str(checksums).lower()}
    inbound = ("0", str(_INBOUND))
    return [
        _with({**both, "INBOUND": share}, relay_of(pod, wishes, ground))
        for pod, share in zip(pods, inbound, strict=True)
    ]


def _with(settings: Mapping[str, str], spec: ProcessSpec) -> ProcessSpec:
    more = {f"OMNI_RELAY_{name}": value for name, value in settings.items()}
    return replace(spec, settings={**spec.settings, **more})


def _ignored(ended: Ended) -> None:
    """A relay that never gets going ends the command; one that ended in between fails the transfer."""
