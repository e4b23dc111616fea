"""What the gateway can serve just now, for probes, for tools and for GET /v1/models. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from omni_gateway.http.sse import Json
from omni_gateway.pipelines import PipelineView, StageView


def readiness_body(pipelines: Mapping[str, PipelineView], *, ready: bool, coordinators: int) -> Json:
    """How far every stage is; `coordinators` counts those that the gateway is connected to."""
    return {
        "status": "ready" if ready else "starting",
        "coordinators": coordinators,
        "pipelines": [
            {"name": p.name, "ready": p.ready, "stages": [_stage(s) for s in p.stages]} for p in pipelines.values()
        ],
    }


def _stage(stage: StageView) -> Json:
    return {
        "stage": stage.stage,
        "ready_replicas": stage.ready_replicas,
        "replicas": [
            {
                "replica": r.replica,
                "phase": r.phase,
                "tensors_loaded": r.tensors_loaded,
                "tensors_total": r.tensors_total,
            }
            for r in stage.replicas
        ],
    }


def model_body(pipeline: PipelineView, created: int) -> Json:
    """OpenAI's model object, and what this model takes and makes under `omni`."""
    return {
        "id": pipeline.name,
        "object": "model",
        "created": created,
        "owned_by": "omni",
        "omni": {
            "ready": pipeline.ready,
            "tasks": sorted(pipeline.tasks),
            "languages": list(pipeline.languages),
            "input_modalities": sorted(pipeline.input_modalities),
            "output_modalities": sorted(pipeline.output_modalities),
            "voices": list(pipeline.voices),
            "default_voice": pipeline.default_voice,
        },
    }
