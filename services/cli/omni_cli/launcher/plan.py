"""Pure: from a pipeline and the user's wishes to the list of processes, with the settings each one gets.

A pod is a placement group's replica: one arena folder and one network identity. The settings are the same
environment variables that the containers get, so that what runs on a laptop is what runs in a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from omni_cli.errors import CommandError
from omni_common.pipeline import PipelineConfig, StageConfig


class Tier(IntEnum):
    """Order of starting. Stopping goes the other way, so that what a request needs outlives what takes requests."""

    STAGE = 0
    COORDINATOR = 1
    GATEWAY = 2


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: the service to run and its settings, as environment variables."""

    name: str
    service: str
    tier: Tier
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pod:
    """What a placement group's processes share."""

    name: str
    host: str
    arena: Path


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for on the command line."""

    family: str
    model: Path | None = None
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

    pipeline_file: Path
    arenas: Path
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class Plan:
    pods: tuple[Pod, ...]
    coordinators: tuple[str, ...]
    processes: tuple[ProcessSpec, ...]


def shape(pipeline: PipelineConfig, wishes: Wishes) -> PipelineConfig:
    """The pipeline with the user's replicas and colocations. Raises CommandError for a stage it has not."""
    for name in (*wishes.replicas, *(name for group in wishes.colocate for name in group)):
        if name not in pipeline.by_name:
            raise CommandError(
                f"Pipeline '{pipeline.name}' has no stage '{name}'. It has {', '.join(pipeline.by_name)}."
            )
    groups: dict[str, str] = {}
    for group in wishes.colocate:
        for name in group:
            if name in groups:
                raise CommandError(f"Stage '{name}' is in two --colocate groups; it can share one pod only.")
            groups[name] = "-".join(group)
    stages = tuple(
        stage.model_copy(
            update={
                "replicas": wishes.replicas.get(stage.name, stage.replicas),
                "placement_group": groups.get(stage.name, stage.placement_group) or stage.name,
            }
        )
        for stage in pipeline.stages
    )
    return pipeline.model_copy(update={"stages": stages})


def plan(pipeline: PipelineConfig, wishes: Wishes, ground: Ground) -> Plan:
    """Every process of the mesh for a shaped pipeline, in the order of starting."""
    names = [f"{stage.placement_group}-{i}" for stage in pipeline.stages for i in range(stage.replicas)]
    pods = {
        name: Pod(name, ground.addresses.pod(index), ground.arenas / name / "arena")
        for index, name in enumerate(dict.fromkeys(names))
    }
    coordinators = [ground.addresses.coordinator(i) for i in range(wishes.coordinators)]
    shared = {"PIPELINE": str(ground.pipeline_file), "FAMILY": wishes.family, "COORDINATORS": ",".join(coordinators)}
    stages = [
        _stage(stage, replica, pod=pods[f"{stage.placement_group}-{replica}"], wishes=wishes, shared=shared)
        for stage in pipeline.stages
        for replica in range(stage.replicas)
    ]
    return Plan(
        pods=tuple(pods.values()),
        coordinators=tuple(coordinators),
        processes=(
            *stages,
            *(_coordinator(i, address, ground, wishes) for i, address in enumerate(coordinators)),
            _gateway(coordinators, wishes),
        ),
    )


def _stage(stage: StageConfig, replica: int, *, pod: Pod, wishes: Wishes, shared: Mapping[str, str]) -> ProcessSpec:
    name = f"{stage.name}-{replica}"
    settings = dict(shared) | {
        "STAGE": stage.name,
        "REPLICA": name,
        "POD": pod.name,
        "NODE": "localhost",
        "BIND": f"{pod.host}:0",
        "DEVICE": wishes.device if stage.gpu else "cpu",
        "ARENA": str(pod.arena),
        # One thread per process: more of them spin against each other when stages outnumber cores.
        "THREADS": "1",
        "METRICS_PORT": "0",
        "DRAIN": wishes.drain,
    }
    if wishes.model is not None:
        settings["MODEL"] = str(wishes.model)
    return ProcessSpec(name, "omni_stage", Tier.STAGE, _prefixed("OMNI_STAGE_", settings) | {"OMP_NUM_THREADS": "1"})


def _coordinator(index: int, address: str, ground: Ground, wishes: Wishes) -> ProcessSpec:
    settings = {
        "BIND": address,
        "PIPELINES": str(ground.pipeline_file),
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
