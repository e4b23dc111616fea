"""Settings of a stage replica. Environment: OMNI_STAGE_*."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import SettingsConfigDict

from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.settings import ByteSize, Duration, ServiceSettings


class StageSettings(ServiceSettings):
    """One replica of one stage."""

    model_config = SettingsConfigDict(env_prefix="OMNI_STAGE_", frozen=True)

    family: str = Field(description="The model family whose code runs, as `omni models` lists it.")
    pipeline: Path | None = Field(
        default=None, description="The pipeline file; without it, the family's own pipeline as declared."
    )
    stage: str = Field(description="The stage's name in the pipeline.")
    replica: str = Field(description="This replica's name, unique in the mesh.")
    pod: str = Field(default_factory=socket.gethostname, description="Replicas of one pod share an arena.")
    node: str = Field(default_factory=socket.gethostname, description="The machine, for placement by locality.")
    bind: str = Field(default="0.0.0.0:0", description="host:port of the StageService; port 0 takes a free one.")
    advertise: str = Field(default="", description="The host under which peers reach it. Default: that of `bind`.")
    coordinators: str = Field(description="host:port of the coordinators, separated by commas; a name may have many.")
    model: Path | None = Field(default=None, description="The folder of the checkpoint.")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, or auto: a GPU where the stage wants one.")
    dtype: str = Field(default="auto", description="float32, bfloat16, or auto: bfloat16 on a GPU, float32 elsewhere.")
    threads: PositiveInt = Field(default=1, description="Threads of one model step on a CPU; more of them spin.")
    arena: Path | None = Field(
        default=None, description="The pod's shared folder, with a relay in it; without it, tensors ride in frames."
    )
    arena_timeout: Duration = Field(default=timedelta(minutes=1), description="How long the relay may take to start.")
    arena_checksums: bool = Field(
        default=False, description="Check tensors from this pod by checksum too, for a pass over the bytes at each end."
    )
    inline_limit: ByteSize = Field(
        default=ByteSize(INLINE_LIMIT),
        le=INLINE_LIMIT,
        description="Larger tensors leave the frames; 0: all of them do.",
    )
    max_inbound: ByteSize = Field(
        default=ByteSize(512 << 20), description="Bytes of tensors in pieces that one upstream may have under way."
    )
    stall_timeout: Duration = Field(
        default=timedelta(minutes=5), description="A scheduler that has not come round for so long ends the process."
    )
    drain: Duration = Field(default=timedelta(seconds=30), description="How long live requests may finish on SIGTERM.")

    @property
    def coordinator_targets(self) -> tuple[str, ...]:
        return tuple(target.strip() for target in self.coordinators.split(",") if target.strip())
