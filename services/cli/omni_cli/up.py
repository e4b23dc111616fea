"""`omni up`."""

from __future__ import annotations

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.plan import Wishes


async def up(wishes: Wishes, *, verbose: bool) -> None:
    """Runs until it is cancelled."""
    async with open_mesh(wishes, say=_say, verbose=verbose) as mesh:
        await mesh.until_ready()
        _say(f"gRPC callers find the coordinator at {', '.join(mesh.plan.coordinators)}")
        _say(f"omni is ready at {mesh.url}/v1")
        for pipeline in mesh.pipelines:
            _say(f"  {pipeline.name}: {', '.join(sorted(pipeline.tasks))}")
        while True:
            await mesh.until_ready_again()
            _say("Every stage is ready again.")


def _say(line: str) -> None:
    print(line, flush=True)
