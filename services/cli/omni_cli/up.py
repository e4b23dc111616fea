"""`omni up`."""

from __future__ import annotations

import anyio

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.plan import Wishes


async def up(wishes: Wishes, *, verbose: bool) -> None:
    """Runs until it is cancelled."""
    async with open_mesh(wishes, say=_say, verbose=verbose) as mesh:
        await mesh.wait_until_ready(_say)
        _say(f"gRPC callers find the coordinator at {', '.join(mesh.plan.coordinators)}")
        _say(f"omni is ready at {mesh.url}/v1")
        await anyio.sleep_forever()


def _say(line: str) -> None:
    print(line, flush=True)
