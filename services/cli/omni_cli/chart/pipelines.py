"""The models' own descriptions as the chart has them: a pipeline file for each family, and what its weights may be. The
chart has no other list of stages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_stage.checkpoint import Checkpoint
from omni_stage.models import FAMILIES, load_checkpoint_config, load_pipeline_config

# Served when nobody says otherwise: it needs no GPU, and nothing is fetched for it.
DEFAULT = "qwen3-omni"
# What a folder of weights may say about a pipeline, and the chart's values may say, too.
_REFINED = ("voices", "default_voice", "languages", "tasks")


def pipeline_files() -> Mapping[str, str]:
    """Family → its pipeline file. Of our own families only: what else is installed here is not the chart's."""
    return {family: _file(_data(load_pipeline_config(family))) for family in sorted(FAMILIES)}


def families_file() -> str:
    """Family → the sources that its weights may have, and what those that come as a package make of its pipeline: its
    voices, languages and tasks. Raises LookupError when they are not installed."""
    return _file({family: _family(family, load_checkpoint_config(family)) for family in sorted(FAMILIES)})


def values_section() -> str:
    """The pipelines in values.yaml: every stage with its place and its bounds, for who wants others."""
    return "".join(f"{line}\n" for family in sorted(FAMILIES) for line in _values_of(family))


def sources_of(checkpoint: Checkpoint | None) -> tuple[str, ...]:
    """The first one is the default."""
    if checkpoint is None:
        return ("none",)
    made = ("tiny",) if checkpoint.tiny else ()
    packaged = ("packaged",) if checkpoint.packaged else ()
    return (*packaged, *made, "hub", "volume", "image")


def _values_of(family: str) -> Iterator[str]:
    yield f"  {family}:"
    yield f"    enabled: {str(family == DEFAULT).lower()}"
    yield f"    family: {family}"
    yield f"    weights: {{source: {sources_of(load_checkpoint_config(family))[0]}}}"
    yield "    stages:"
    for stage in load_pipeline_config(family).stages:
        yield f"      {stage.name}: {{{', '.join(_bounds(stage))}}}"


def _bounds(stage: StageConfig) -> Iterator[str]:
    yield f"placementGroup: {stage.placement_group or stage.process_name}"
    if stage.process:
        yield f"process: {stage.process}"
    yield f"maxRunning: {stage.max_running}"
    yield f"maxWaiting: {stage.max_waiting}"
    yield f"credits: {stage.credits}"


def _family(family: str, checkpoint: Checkpoint | None) -> Mapping[str, object]:
    sources = {"sources": sources_of(checkpoint)}
    if checkpoint is None or checkpoint.packaged is None:
        return sources
    folder = checkpoint.packaged.find()
    if folder is None:
        raise LookupError(f"The weights of '{family}' are not installed: run make setup.")
    refined = _data(load_pipeline_config(family, folder))
    return {**sources, "packaged": {name: refined[name] for name in _REFINED}}


def _data(pipeline: PipelineConfig) -> dict[str, object]:
    """As JSON has it; sets in their order, so that the file is the same every time."""
    data: dict[str, object] = pipeline.model_dump(mode="json")
    sets = {name for name, value in pipeline if isinstance(value, frozenset)}
    return {name: sorted(value) if name in sets and isinstance(value, list) else value for name, value in data.items()}


def _file(data: object) -> str:
    return json.dumps(data, indent=2) + "\n"
