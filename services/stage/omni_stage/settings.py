"""Settings of a stage process. Environment: OMNI_STAGE_*."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from omni_common.pipeline import replica_names
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.settings import ByteSize, Duration, ServiceSettings
from omni_stage.program import PREFIX_CACHE


class StageSettings(ServiceSettings):
    """One replica of one stage, or of each of several."""

    model_config = SettingsConfigDict(env_prefix="OMNI_STAGE_", frozen=True)

    family: str = Field(description="The model family whose code runs, as `omni models` lists it.")
    pipeline: Path | None = Field(
        default=None, description="The pipeline file; without it, the family's own pipeline as declared."
    )
    stage: str = Field(
        description="The stage's name in the pipeline; or several, separated by commas, for one process."
    )
    replica: str = Field(description="This replica's name, unique in the mesh; of several stages, each has NAME.STAGE.")
    pod: str = Field(default_factory=socket.gethostname, description="Replicas of one pod share an arena.")
    node: str = Field(default_factory=socket.gethostname, description="The machine, for placement by locality.")
    bind: str = Field(
        default="0.0.0.0:0",
        description="host:port of the StageService; port 0 takes a free one. Of several stages, the first "
        "has this port, each other the one after.",
    )
    advertise: str = Field(default="", description="The host under which peers reach it. Default: that of `bind`.")
    coordinators: str = Field(description="host:port of the coordinators, separated by commas; a name may have many.")
    model: Path | None = Field(default=None, description="The folder of the checkpoint.")
    device: str = Field(
        default="auto",
        description="cpu, cuda, cuda:1, or auto: a GPU where the stage wants one. Of several stages, those that want "
        "none have the CPU.",
    )
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
    device_ways: bool = Field(
        default=True, description="Let tensors on a GPU go to stages of this pod by CUDA IPC and NCCL, not by the host."
    )
    max_inbound: ByteSize = Field(
        default=ByteSize(512 << 20), description="Bytes of tensors in pieces that one upstream may have under way."
    )
    prefix_cache: ByteSize = Field(
        default=ByteSize(PREFIX_CACHE),
        description="Keys and values of prompts' beginnings that are kept for requests to come; 0 keeps none.",
    )
    stall_timeout: Duration = Field(
        default=timedelta(minutes=5), description="A scheduler that has not come round for so long ends the process."
    )
    drain: Duration = Field(default=timedelta(seconds=30), description="How long live requests may finish on SIGTERM.")

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.stage.split(","))

    def of_each_stage(self) -> tuple[Self, ...]:
        """The settings of each stage's replica, as if it were alone."""
        if len(self.stages) == 1:
            return (self,)
        host, _, port = self.bind.rpartition(":")
        replicas = replica_names(self.replica, self.stages)
        return tuple(
            self.model_copy(
                update={"stage": stage, "replica": replica, "bind": f"{host}:{int(port) and int(port) + n}"}
            )
            for n, (stage, replica) in enumerate(zip(self.stages, replicas, strict=True))
        )

    @model_validator(mode="after")
    def _stages_differ(self) -> Self:
        if len(set(self.stages)) < len(self.stages) or not all(self.stages):
            raise ValueError("OMNI_STAGE_STAGE names a stage, or several that differ, separated by commas.")
        return self

    @property
    def coordinator_targets(self) -> tuple[str, ...]:
        return tuple(target.strip() for target in self.coordinators.split(",") if target.strip())
