"""What a run writes down about itself for whoever watches it: the file `mesh` in its folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from omni_cli.launcher.folders import living_runs
from omni_cli.launcher.plan import Plan

_FILE = "mesh"


class Watched(BaseModel):
    """A process that serves metrics at host:port; `pipeline` where it is of one only."""

    model_config = ConfigDict(frozen=True)

    name: str
    metrics: str
    pipeline: str = ""


class RunState(BaseModel):
    """A running mesh: where it answers, and its processes."""

    model_config = ConfigDict(frozen=True)

    url: str
    processes: tuple[Watched, ...]


def write_state(run: Path, url: str, plan: Plan) -> None:
    """Whoever reads it sees all of it or nothing."""
    watched = [Watched(name=p.name, metrics=p.metrics, pipeline=p.pipeline) for p in plan.processes]
    draft = run / f".{_FILE}"
    draft.write_text(RunState(url=url, processes=tuple(watched)).model_dump_json(indent=2))
    draft.rename(run / _FILE)


def newest_state(base: Path) -> RunState | None:
    """That of the living run which began last; None where none lives."""
    for run in living_runs(base):
        try:
            return RunState.model_validate_json((run / _FILE).read_bytes())
        except (OSError, ValidationError):  # it has just begun, it ends, or it is of another version
            continue
    return None
