"""The models there are, by family name. A model's code is imported when it is asked for, never before."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from omni_common.pipeline import PipelineConfig
from omni_stage.checkpoint import Checkpoint
from omni_stage.program import ModelFamily

FAMILIES: Mapping[str, str] = {
    "echo": "omni_stage.models.echo",
    "piper": "omni_stage.models.piper",
    "qwen3-omni": "omni_stage.models.qwen3_omni",
    "whisper": "omni_stage.models.whisper",
}
"""Family name → package with `config.PIPELINE`, `stages.FAMILY` and, where there are weights, `config.CHECKPOINT`;
`config.configure(folder)` may refine the pipeline for one folder of them. Others join by entry points `omni.models`."""


def families() -> Mapping[str, str]:
    """Ours and those of installed distributions; a name of ours cannot be taken over."""
    return {**{point.name: point.value for point in entry_points(group="omni.models")}, **FAMILIES}


def load_pipeline_config(name: str, model: Path | None = None) -> PipelineConfig:
    """The family's graph; with the folder of its weights, what these can do: their voices, languages and tasks.

    Imports no tensor library. Raises KeyError with the names there are, and ValueError with a sentence when the folder
    does not hold what the family needs.
    """
    config = import_module(f"{_package(name)}.config")
    configure = getattr(config, "configure", None)
    pipeline = config.PIPELINE if model is None or configure is None else configure(model)
    if not isinstance(pipeline, PipelineConfig):
        raise TypeError(f"PIPELINE of model family '{name}' is not a PipelineConfig")
    return pipeline


def load_checkpoint_config(name: str) -> Checkpoint | None:
    """What the family's weights are; None when it needs none. Raises KeyError with the names there are."""
    checkpoint = getattr(import_module(f"{_package(name)}.config"), "CHECKPOINT", None)
    if not isinstance(checkpoint, Checkpoint | None):
        raise TypeError(f"CHECKPOINT of model family '{name}' is not a Checkpoint")
    return checkpoint


def load_family(name: str) -> ModelFamily:
    """The family's factories. Raises KeyError with the names there are."""
    family = import_module(f"{_package(name)}.stages").FAMILY
    if not isinstance(family, ModelFamily):
        raise TypeError(f"FAMILY of model family '{name}' is not a ModelFamily")
    return family


def _package(name: str) -> str:
    known = families()
    if name not in known:
        raise KeyError(f"there is no model family '{name}'; there are {', '.join(sorted(known))}")
    return known[name]
