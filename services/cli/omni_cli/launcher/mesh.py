"""A whole mesh on this machine, as a context: inside it runs, after it nothing is left of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from omni_cli.descriptors import LEAST_FOR_MESH, require_descriptors
from omni_cli.errors import CommandError
from omni_cli.launcher.credentials import write_certificates, write_token
from omni_cli.launcher.folders import Folders, base_folder, run_folders
from omni_cli.launcher.ground import LEAST_SHARE, MIB, Ground, share_of
from omni_cli.launcher.logs import printed
from omni_cli.launcher.network import choose_addresses, require_free
from omni_cli.launcher.plan import COMPONENTS, Plan, ProcessSpec, Served, Tier, Wishes, count, plan
from omni_cli.launcher.preload import preloads
from omni_cli.launcher.processes import fork_server, open_starters
from omni_cli.launcher.readiness import Watch
from omni_cli.launcher.shape import shape
from omni_cli.launcher.state import write_state
from omni_cli.launcher.supervisor import Ended, Supervisor, supervised
from omni_cli.launcher.transports import unusable
from omni_cli.settings import CommandSettings
from omni_common.clock import monotonic
from omni_common.pipeline import PipelineConfig

# Twice what the services drain by default here: the gateway's drain comes first, then the others have little to do.
_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh."""

    url: str
    pipelines: tuple[PipelineConfig, ...]
    plan: Plan
    supervisor: Supervisor
    watch: Watch

    async def until_ready(self) -> None:
        """Every pipeline is."""
        await self.watch.until_ready()
        self.supervisor.mesh_is_ready()

    async def until_ready_again(self) -> None:
        """Waits for the next restart and what it takes."""
        await self.supervisor.restarted()
        await self.watch.until_ready()


@asynccontextmanager
async def open_mesh(wishes: Wishes, *, say: Callable[[str], None], verbose: bool) -> AsyncIterator[Mesh]:
    """Starts the mesh; `say` gets a line for whatever a person should know. Raises CommandError, bare or in a group."""
    require_descriptors(LEAST_FOR_MESH)
    served = shape(wishes)
    require_free(wishes.host, wishes.port)
    base = base_folder(CommandSettings().runtime_dir)
    with run_folders(base, LEAST_SHARE * count(served, wishes).shares) as folders:
        made = prepare(served, wishes, folders)
        for line in (*about_transports(wishes), *about_arenas(made, wishes, folders)):
            say(line)
        preload = preloads(one.family for one in served)
        writers = [*map(fork_server, preload), *(process.name for process in made.processes)]
        async with AsyncExitStack() as stack:
            if verbose:
                await stack.enter_async_context(printed(folders.logs, writers, say))
            starters = await stack.enter_async_context(open_starters(preload, folders.logs))
            supervisor = Supervisor(
                starters,
                logs=folders.logs,
                report=_obituaries(say),
                hopeless=lambda process: _taken(process, wishes),
                clock=monotonic,
                grace=_GRACE,
            )
            await stack.enter_async_context(supervised(supervisor, made.processes))
            yield _mesh(served, wishes, made, supervisor, say)


def prepare(served: Sequence[Served], wishes: Wishes, folders: Folders) -> Plan:
    """The plan of a mesh, with the files and folders that its processes expect. Raises CommandError."""
    try:
        return _prepare(served, wishes, folders)
    except OSError as error:
        raise CommandError(
            f"Cannot write to {folders.run}: {error.strerror}. Name another place by XDG_RUNTIME_DIR."
        ) from None


def _prepare(served: Sequence[Served], wishes: Wishes, folders: Folders) -> Plan:
    counts = count(served, wishes)
    share = share_of(folders.room, counts, wishes.share)
    ground = Ground(folders.run, folders.arenas, choose_addresses(counts), share)
    made = plan(served, wishes, ground)
    for one in served:
        ground.file_of(one.pipeline.name).write_text(one.pipeline.model_dump_json(indent=2))
    for pod in made.pods:
        pod.folder.mkdir(parents=True)
    write_token(ground)
    if wishes.encryption in {"tls", "aead"}:
        write_certificates(ground, made.pods, COMPONENTS)
    write_state(folders.run, _url(wishes), made)
    return made


def about_transports(wishes: Wishes) -> Iterator[str]:
    """What a person should know who wished for a transport that is not there."""
    for sentence in unusable(wishes.transports):
        yield f"{sentence} Tensors for other pods take the next transport."


def about_arenas(made: Plan, wishes: Wishes, folders: Folders) -> Iterator[str]:
    """What a person should know when there is little shared memory."""
    if folders.arenas.is_relative_to(folders.run):
        yield f"There is no room in shared memory: the arenas are files in {folders.arenas}, which may be slower."
    if made.share < wishes.share:
        yield f"There is room for {made.share // MIB} MiB of arena for each stage, not for {wishes.share // MIB} MiB."


def _mesh(
    served: Sequence[Served], wishes: Wishes, made: Plan, supervisor: Supervisor, say: Callable[[str], None]
) -> Mesh:
    url = _url(wishes)
    replicas = [replica for process in made.processes for replica in process.replicas]
    pipelines = tuple(one.pipeline for one in served)
    (own,) = (process.metrics for process in made.processes if process.tier is Tier.GATEWAY)
    watch = Watch(
        url, [pipeline.name for pipeline in pipelines], replicas, lambda progress: say(str(progress)), own=own
    )
    return Mesh(url, pipelines, made, supervisor, watch)


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


def _taken(process: ProcessSpec, wishes: Wishes) -> str:
    """Why the gateway, which has ended, would end again: somebody took its port since it was found free."""
    if process.tier is Tier.GATEWAY:
        try:
            require_free(wishes.host, wishes.port)
        except CommandError as error:
            return str(error)
    return ""


def _url(wishes: Wishes) -> str:
    scheme = "http" if CommandSettings().https_cert is None else "https"
    return f"{scheme}://{_reachable(wishes.host)}:{wishes.port}"


def _reachable(host: str) -> str:
    """Where a client on this machine finds a server that listens on `host`."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 -- compared, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
