"""`omni up`."""

from __future__ import annotations

from pathlib import Path

from omni_cli.launcher.mesh import open_mesh
from omni_cli.launcher.plan import Plan, Tier, Wishes
from omni_common.component import Component


async def up(wishes: Wishes, *, verbose: bool) -> None:
    """Runs until it is cancelled."""
    async with open_mesh(wishes, say=_say, verbose=verbose) as mesh:
        await mesh.until_ready()
        _say(f"gRPC callers find the coordinator at {', '.join(mesh.plan.coordinators)}{_way_in(mesh.plan)}")
        _say(f"omni is ready at {mesh.url}/v1")
        for pipeline in mesh.pipelines:
            _say(f"  {pipeline.name}: {', '.join(sorted(pipeline.tasks))}")
        while True:
            await mesh.until_ready_again()
            _say("Every stage is ready again.")


def _way_in(plan: Plan) -> str:
    """What a caller must show where gRPC is by TLS: what the run's own gateway does."""
    (gateway,) = (process for process in plan.processes if process.tier is Tier.GATEWAY)
    files = [gateway.settings.get(f"OMNI_GATEWAY_TLS_{name}") for name in ("CA", "CERT", "KEY")]
    if not all(files):
        return ""
    ca, certificate, key = map(Path, filter(None, files))
    return f" as {Component.COORDINATOR}, by TLS with {ca.name}, {certificate.name} and {key.name} in {ca.parent}"


def _say(line: str) -> None:
    print(line, flush=True)
