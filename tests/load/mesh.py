"""A mesh of processes to measure, started as `omni up` starts it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from omni_cli.launcher.folders import base_folder, run_folders
from omni_cli.launcher.mesh import prepare
from omni_cli.launcher.network import free_port
from omni_cli.launcher.plan import ProcessSpec, Tier, Wishes
from omni_cli.launcher.preload import modules_of
from omni_cli.launcher.processes import open_starters
from omni_cli.launcher.readiness import Watch
from omni_cli.launcher.shape import shape
from omni_cli.launcher.supervisor import Ended, Supervisor, supervised
from omni_cli.serving import serve
from omni_common.clock import monotonic
from omni_common.pipeline import PipelineConfig

HOST = "127.0.0.1"
START_SECONDS = 120.0
_GRACE = 10.0
_ARENAS = 1 << 30


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh that is ready: its gateway's port and its coordinator's address."""

    port: int
    coordinator: str
    pipeline: PipelineConfig


@asynccontextmanager
async def running_mesh(family: str, model: Path | None = None, *, also_attach_to: str = "") -> AsyncIterator[Mesh]:
    """The processes run inside. Its stages also attach to the coordinator at `also_attach_to`."""
    wishes = Wishes((serve(family, model),), host=HOST, port=free_port(HOST), device="cpu")
    (served,) = shape(wishes)
    with run_folders(base_folder(None), _ARENAS) as folders:
        made = prepare((served,), wishes, folders)
        processes = [_attached(process, also_attach_to) for process in made.processes]
        async with open_starters({family: modules_of(family)}, folders.logs) as starters:
            supervisor = Supervisor(starters, logs=folders.logs, report=_tell, clock=monotonic, grace=_GRACE)
            async with supervised(supervisor, processes):
                with anyio.fail_after(START_SECONDS):
                    await Watch(f"http://{HOST}:{wishes.port}", [family], (), lambda _: None).until_ready()
                yield Mesh(wishes.port, made.coordinators[0], served.pipeline)


def _attached(process: ProcessSpec, address: str) -> ProcessSpec:
    name = "OMNI_STAGE_COORDINATORS"
    if process.tier is not Tier.STAGE or not address:
        return process
    return replace(process, settings={**process.settings, name: f"{process.settings[name]},{address}"})


def _tell(ended: Ended) -> None:
    print(f"{ended.name} {ended.why}", *ended.log, sep="\n    ", file=sys.stderr)
