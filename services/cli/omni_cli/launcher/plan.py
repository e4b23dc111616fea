"""Pure: from the pipelines and the user's wishes to the list of processes, with the settings each one gets.

Every pipeline has stages and pods of its own; the coordinators and the gateway are for all of them. A pod is a
placement group's replica: one arena folder and one network identity. The settings are the same environment variables
that the containers get, so that what runs on a laptop is what runs in a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from omni_common.pipeline import PipelineConfig, StageConfig


class Tier(IntEnum):
    """Order of starting. Stopping goes the other way, so that what a request needs outlives what takes requests."""

    STAGE = 0
    COORDINATOR = 1
    GATEWAY = 2


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: the service to run and its settings, as environment variables; `family`: whose code it runs."""

    name: str
    service: str
    tier: Tier
    settings: Mapping[str, str]
    family: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """What a placement group's processes share."""

    name: str
    host: str
    arena: Path


@dataclass(frozen=True, slots=True)
class Served:
    """A pipeline that is served: the family whose code it is, its graph, and the folder of its weights, if any."""

    family: str
    pipeline: PipelineConfig
    model: Path | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for on the command line. Stages are named `STAGE` or `PIPELINE/STAGE`."""

    served: Sequence[Served]
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: Mapping[str, int] = field(default_factory=dict)
    colocate: Sequence[Sequence[str]] = ()
    coordinators: int = 1
    device: str = "auto"
    drain: str = "5s"


class Addresses(Protocol):
    """The loopback addresses of one run."""

    def pod(self, index: int) -> str: ...

    def coordinator(self, index: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Ground:
    """Where one run lives: its folders and its addresses."""

    pipelines: Path
    arenas: Path
    addresses: Addresses

    def file_of(self, served: Served) -> Path:
        """Where the pipeline is written for its stages and the coordinators to read."""
        return self.pipelines / f"{served.pipeline.name}.json"


@dataclass(frozen=True, slots=True)
class Plan:
    pods: tuple[Pod, ...]
    coordinators: tuple[str, ...]
    processes: tuple[ProcessSpec, ...]


def plan(served: Sequence[Served], wishes: Wishes, ground: Ground) -> Plan:
    """Every process of the mesh for shaped pipelines, in the order of starting."""
    coordinators = [ground.addresses.coordinator(i) for i in range(wishes.coordinators)]
    pods = _pods(served, ground)
    stages = [
        process
        for one in served
        for process in _stages(one, pods, wishes, pipeline_file=ground.file_of(one), coordinators=coordinators)
    ]
    files = [str(ground.file_of(one)) for one in served]
    return Plan(
        pods=tuple(pods.values()),
        coordinators=tuple(coordinators),
        processes=(
            *stages,
            *(_coordinator(i, address, files, wishes) for i, address in enumerate(coordinators)),
            _gateway(coordinators, wishes),
        ),
    )


def _pods(served: Sequence[Served], ground: Ground) -> dict[str, Pod]:
    names = dict.fromkeys(
        _pod_name(one.pipeline, stage, replica)
        for one in served
        for stage in one.pipeline.stages
        for replica in range(stage.replicas)
    )
    return {
        name: Pod(name, ground.addresses.pod(index), ground.arenas / name / "arena") for index, name in enumerate(names)
    }


def _pod_name(pipeline: PipelineConfig, stage: StageConfig, replica: int) -> str:
    return f"{pipeline.name}-{stage.placement_group}-{replica}"


def _stages(
    served: Served, pods: Mapping[str, Pod], wishes: Wishes, *, pipeline_file: Path, coordinators: Sequence[str]
) -> Iterator[ProcessSpec]:
    shared = {
        "FAMILY": served.family,
        "PIPELINE": str(pipeline_file),
        "COORDINATORS": ",".join(coordinators),
        "NODE": "localhost",
        # One thread per process: more of them spin against each other when stages outnumber cores.
        "THREADS": "1",
        "METRICS_PORT": "0",
        "DRAIN": wishes.drain,
    }
    if served.model is not None:
        shared["MODEL"] = str(served.model)
    for stage in served.pipeline.stages:
        for replica in range(stage.replicas):
            pod = pods[_pod_name(served.pipeline, stage, replica)]
            name = f"{served.pipeline.name}-{stage.name}-{replica}"
            settings = shared | {
                "STAGE": stage.name,
                "REPLICA": name,
                "POD": pod.name,
                "BIND": f"{pod.host}:0",
                "DEVICE": wishes.device if stage.gpu else "cpu",
                "ARENA": str(pod.arena),
            }
            environment = _prefixed("OMNI_STAGE_", settings) | {"OMP_NUM_THREADS": "1"}
            yield ProcessSpec(name, "omni_stage", Tier.STAGE, environment, served.family)


def _coordinator(index: int, address: str, pipeline_files: Sequence[str], wishes: Wishes) -> ProcessSpec:
    settings = {
        "BIND": address,
        "PIPELINES": ",".join(pipeline_files),
        "METRICS_PORT": "0",
        "DRAIN": wishes.drain,
    }
    return ProcessSpec(
        f"coordinator-{index}", "omni_coordinator", Tier.COORDINATOR, _prefixed("OMNI_COORDINATOR_", settings)
    )


def _gateway(coordinators: Sequence[str], wishes: Wishes) -> ProcessSpec:
    settings = {
        "BIND": f"[{wishes.host}]:{wishes.port}" if ":" in wishes.host else f"{wishes.host}:{wishes.port}",
        "COORDINATORS": ",".join(coordinators),
        "METRICS_PORT": "0",
        "DRAIN": wishes.drain,
    }
    return ProcessSpec("gateway-0", "omni_gateway", Tier.GATEWAY, _prefixed("OMNI_GATEWAY_", settings))


def _prefixed(prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {prefix + name: value for name, value in settings.items()}
