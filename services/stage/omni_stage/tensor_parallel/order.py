"""What rank 0 tells a follower first: whose part of which model it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omni_common.pipeline import PipelineConfig
from omni_stage.program import StageContext
from omni_stage.tensor_parallel.rank import Rank


@dataclass(frozen=True, slots=True)
class Order:
    """Plain values only: a follower makes everything else of them by itself."""

    family: str
    pipeline: str  # JSON
    stage: str
    model: str | None
    device: str
    dtype: str
    threads: int
    log_level: str
    number: int = 0
    size: int = 1
    meeting: str = ""
    timeout: float = 300.0

    def of(self, rank: Rank) -> Order:
        return replace(self, number=rank.number, size=rank.size, meeting=str(rank.meeting), timeout=rank.timeout)

    @property
    def rank(self) -> Rank:
        return Rank(self.number, self.size, Path(self.meeting), self.timeout)

    def context(self) -> StageContext:
        pipeline = PipelineConfig.model_validate_json(self.pipeline)
        return StageContext(
            pipeline=pipeline,
            stage=pipeline.stage(self.stage),
            model=None if self.model is None else Path(self.model),
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            progress=lambda loaded, total: None,  # rank 0 tells of its own part, which is the largest
            rank=self.rank,
        )


def render(order: Order) -> bytes:
    return json.dumps(asdict(order)).encode()


def parse(message: bytes) -> Order:
    return Order(**json.loads(message))
