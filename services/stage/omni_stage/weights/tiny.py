"""Random weights of a family's real shape, which know nothing: the same in every pod that makes them."""

from __future__ import annotations

import importlib
from pathlib import Path

from omni_stage.checkpoint import Checkpoint
from omni_stage.models import families, load_checkpoint_config
from omni_stage.weights.errors import WeightsError


def put_tiny(family: str, checkpoint: Checkpoint | None, folder: Path) -> None:
    """Raises WeightsError when the family has none."""
    if checkpoint is None or not checkpoint.tiny:
        able = ", ".join(name for name in sorted(families()) if (c := load_checkpoint_config(name)) and c.tiny)
        raise WeightsError(f"No tiny model can be made for '{family}'; it can for {able}.")
    folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module(checkpoint.tiny).make_tiny(folder)
