"""From names on the command line to pipelines that can be served: each with its weights, and as these make it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omni_cli.checkpoint import find_checkpoints
from omni_cli.errors import CommandError
from omni_cli.launcher.plan import Served
from omni_stage.models import families, load_pipeline_config


def choose(names: Sequence[str], models: Sequence[str]) -> tuple[Served, ...]:
    """The families with the weights that --model or an installed distribution has for them. Raises CommandError."""
    if len(set(names)) < len(names):
        raise CommandError("A pipeline can be given once; for more processes give --replicas.")
    return tuple(serve(family, folder) for family, folder in find_checkpoints(names, models).items())


def serve(family: str, model: Path | None = None) -> Served:
    """The family with these weights. Raises CommandError when there is no such family and when they do not fit it."""
    if family not in families():
        raise CommandError(f"There is no pipeline '{family}'. There are {', '.join(sorted(families()))}.")
    try:
        return Served(family, load_pipeline_config(family, model), model)
    except ValueError as error:
        raise CommandError(f"Pipeline '{family}' cannot be served from {model}: {error}") from error
