"""The models there are, by family name. A model's code is imported when it is asked for, never before."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points

from omni_common.pipeline import PipelineConfig
from omni_stage.program import ModelFamily

FAMILIES: Mapping[str, str] = {
    "echo": "omni_stage.models.echo",
    "qwen3-omni": "omni_stage.models.qwen3_omni",
}
"""Family name → package with `config.PIPELINE` and `stages.FAMILY`. Others join by entry points `omni.models`."""


def families() -> Mapping[str, str]:
    """Ours and those of installed distributions; a name of ours cannot be taken over."""
    return {**{point.name: point.value for point in entry_points(group="omni.models")}, **FAMILIES}


def load_pipeline_config(name: str) -> PipelineConfig:
    """The family's graph; imports no tensor library. Raises KeyError with the names there are."""
    pipeline = import_module(f"{_package(name)}.config").PIPELINE
    if not isinstance(pipeline, PipelineConfig):
        raise TypeError(f"PIPELINE of model family '{name}' is not a PipelineConfig")
    return pipeline


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
