"""What callers may ask of a model: nothing that it cannot do is ignored in silence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from omni_common.errors import Unsupported
from omni_common.request import GenerationParams, Sampling


def require_known(params: GenerationParams, known: Collection[str], *, model: str) -> None:
    """Raises Unsupported when the caller set what is not among the `known` fields of Sampling, or a stop string where
    "stop" is not."""
    for sampling in (params.sampling, *params.stage_sampling.values()):
        for setting in fields(Sampling):
            if setting.name not in known and getattr(sampling, setting.name) is not None:
                raise Unsupported(f"{model} has no {setting.name}: leave it out.", param=setting.name)
    if params.stop and "stop" not in known:
        raise Unsupported(f"{model} knows no stop strings: leave them out.", param="stop")
