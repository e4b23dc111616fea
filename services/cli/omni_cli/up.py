"""`omni up`."""

from __future__ import annotations

from dataclasses import replace

import anyio

from omni_cli.checkpoint import find_checkpoint
from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.plan import Wishes


async def up(wishes: Wishes, model: str | None, *, verbose: bool) -> None:
    """Runs until it is cancelled."""
    wishes = replace(wishes, model=await find_checkpoint(wishes.family, model))
    async with open_mesh(wishes, say=_say, verbose=verbose) as mesh:
        await mesh.wait_until_ready(_say)
        _say(f"omni is ready at {mesh.url}/v1")
        await anyio.sleep_forever()


def _say(line: str) -> None:
    print(line, flush=True)
