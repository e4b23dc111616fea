"""The models' own descriptions as the chart has them: one pipeline file a family. The chart has no other list of
stages."""

from __future__ import annotations

import json
from collections.abc import Mapping

from omni_common.pipeline import PipelineConfig
from omni_stage.models import FAMILIES, load_checkpoint_config, load_pipeline_config

# What a folder of weights may say about a pipeline, and the chart's values may say, too.
_REFINED = ("voices", "default_voice", "languages", "tasks")


def pipeline_files() -> Mapping[str, str]:
    """Family → its pipeline file. Of our own families only: what else is installed here is not the chart's."""
    return {family: _file(_data(load_pipeline_config(family))) for family in sorted(FAMILIES)}


def packaged_file() -> str:
    """What the weights that come as packages make of their families' pipelines: their voices, languages and tasks.
    Raises LookupError when they are not installed: `make setup` does it."""
    return _file({family: _packaged(family) for family in sorted(FAMILIES) if _has_package(family)})


def _has_package(family: str) -> bool:
    checkpoint = load_checkpoint_config(family)
    return checkpoint is not None and checkpoint.packaged is not None


def _packaged(family: str) -> Mapping[str, object]:
    checkpoint = load_checkpoint_config(family)
    folder = checkpoint.packaged.find() if checkpoint and checkpoint.packaged else None
    if folder is None:
        raise LookupError(f"The weights of '{family}' are not installed: run make setup.")
    refined = _data(load_pipeline_config(family, folder))
    return {name: refined[name] for name in _REFINED}


def _data(pipeline: PipelineConfig) -> dict[str, object]:
    """As JSON has it; sets in their order, so that the file is the same every time."""
    data: dict[str, object] = pipeline.model_dump(mode="json")
    sets = {name for name, value in pipeline if isinstance(value, frozenset)}
    return {name: sorted(value) if name in sets and isinstance(value, list) else value for name, value in data.items()}


def _file(data: object) -> str:
    return json.dumps(data, indent=2) + "\n"
