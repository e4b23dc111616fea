"""A whole mesh on this machine, as a context: inside it runs, after it nothing is left of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from omni_cli.errors import CommandError
from omni_cli.launcher.folders import Folders, base_folder, run_folders
from omni_cli.launcher.network import choose_addresses, require_free
from omni_cli.launcher.plan import Ground, Plan, Tier, Wishes, plan, shape
from omni_cli.launcher.preload import modules_of
from omni_cli.launcher.processes import Spawner, Starter, open_forker
from omni_cli.launcher.readiness import Watch
from omni_cli.launcher.supervisor import Ended, Supervisor, supervised
from omni_cli.settings import CommandSettings
from omni_common.clock import monotonic
from omni_common.pipeline import PipelineConfig
from omni_stage.models import families, load_pipeline_config

# What a stage takes of the shared memory by default (OMNI_STAGE_ARENA_SIZE).
_ARENA_BYTES = 64 * 1024 * 1024
# Twice what the services drain by default here: the gateway's drain comes first, then the others have little to do.
_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh."""

    url: str
    pipeline: PipelineConfig
    plan: Plan
    supervisor: Supervisor
    watch: Watch

    async def until_ready(self) -> None:
        await self.watch.until_ready()
        self.supervisor.mesh_is_ready()

    async def until_ready_again(self) -> None:
        """Waits for the next restart and what it takes."""
        await self.supervisor.restarted()
        await self.watch.until_ready()


@asynccontextmanager
async def open_mesh(wishes: Wishes, *, say: Callable[[str], None], verbose: bool) -> AsyncIterator[Mesh]:
    """Starts the mesh; `say` gets a line for whatever a person should know. Raises CommandError, bare or in a group."""
    pipeline = shape(_pipeline(wishes.family), wishes)
    require_free(wishes.host, wishes.port)
    base = base_folder(CommandSettings().runtime_dir)
    arena_bytes = _ARENA_BYTES * sum(stage.replicas for stage in pipeline.stages)
    with run_folders(base, arena_bytes) as folders:
        made = _prepare(pipeline, wishes, folders)
        logs = None if verbose else folders.logs
        async with open_forker(modules_of(wishes.family), None if logs is None else logs / "forkserver.log") as forker:
            starters: dict[Tier, Starter] = {Tier.STAGE: forker, Tier.COORDINATOR: Spawner(), Tier.GATEWAY: Spawner()}
            supervisor = Supervisor(starters, logs=logs, report=_obituaries(say), clock=monotonic, grace=_GRACE)
            async with supervised(supervisor, made.processes):
                url = f"http://{_reachable(wishes.host)}:{wishes.port}"
                stages = [process.name for process in made.processes if process.tier is Tier.STAGE]
                watch = Watch(url, stages, lambda progress: say(str(progress)))
                yield Mesh(url, pipeline, made, supervisor, watch)


def _pipeline(family: str) -> PipelineConfig:
    if family not in families():
        raise CommandError(f"There is no pipeline '{family}'. There are {', '.join(sorted(families()))}.")
    return load_pipeline_config(family)


def _prepare(pipeline: PipelineConfig, wishes: Wishes, folders: Folders) -> Plan:
    folders.pipeline_file.write_text(pipeline.model_dump_json(indent=2))
    ground = Ground(folders.pipeline_file, folders.arenas, choose_addresses(wishes.coordinators))
    made = plan(pipeline, wishes, ground)
    for pod in made.pods:
        pod.arena.mkdir(parents=True)
    return made


def _obituaries(say: Callable[[str], None]) -> Callable[[Ended], None]:
    """Says what ended and what it wrote last; when a whole mesh fails for one reason, the reason is said once."""
    told: tuple[str, ...] = ()

    def report(ended: Ended) -> None:
        nonlocal told
        say(f"{ended.name} {ended.why}; starting it again in {ended.again_in:g} s.")
        if ended.log != told:
            told = ended.log
            for line in ended.log:
                say(f"    {line}")

    return report


def _reachable(host: str) -> str:
    """Where a client on this machine finds a server that listens on `host`."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 -- compared, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
