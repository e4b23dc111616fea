"""What callers say about sampling, as the mesh knows it."""

from __future__ import annotations

from collections.abc import Mapping

from omni_common.errors import InvalidRequest
from omni_common.request import Sampling
from omni_gateway.pipelines import PipelineView
from omni_gateway.schemas import StageSampling


def seed_of(seed: int | None) -> int | None:
    """OpenAI's seeds are signed, the mesh's are not; each keeps its own."""
    return None if seed is None else seed % 2**64


def stage_sampling_of(given: Mapping[str, StageSampling], pipeline: PipelineView) -> dict[str, Sampling]:
    """By stage. Raises InvalidRequest for one that the pipeline does not have."""
    stages = {stage.stage for stage in pipeline.stages}
    if not stages.issuperset(given):
        raise InvalidRequest(
            f"The model '{pipeline.name}' has no such stage; it has {', '.join(sorted(stages))}.",
            param="stage_sampling",
            code="invalid_value",
        )
    return {name: Sampling(**{**s.model_dump(), "seed": seed_of(s.seed)}) for name, s in given.items()}
