"""Pure: from the pipelines and the user's wishes to the list of processes, with the settings each one gets.

Every pipeline has stages and pods of its own; the coordinators and the gateway are for all of them. A pod is a
placement group's replica: one folder with an arena, one relay and one network identity. The settings are the same
environment variables that the containers get, so that what runs on a laptop is what runs in a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Literal

from omni_cli.launcher.ground import SHARE, Counts, Ground, Pod
from omni_common.component import Component
from omni_common.pipeline import PipelineConfig, StageConfig, processes_of, replica_names

RELAY = "relay"
"""In place of a family: relays are forked from a server of their own."""
Encryption = Literal["none", "tls", "aead"]
COMPONENTS = (Component.GATEWAY, Component.COORDINATOR, Component.STAGE)
"""What speaks gRPC, and so has a certificate for it where relays encrypt."""


class Tier(IntEnum):
    """Order of starting. Stopping goes the other way, so that what a request needs outlives what takes requests."""

    RELAY = 0
    STAGE = 1
    COORDINATOR = 2
    GATEWAY = 3


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: the service to run and its settings, as environment variables.

    `family`: whose code it runs. `pipeline`: whose requests it serves, where that is one only. `metrics`: host:port.
    `replicas`: the names of the stage replicas in it.
    """

    name: str
    service: str
    tier: Tier
    settings: Mapping[str, str]
    family: str = ""
    pipeline: str = ""
    metrics: str = ""
    replicas: tuple[str, ...] = ()


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
    tp: Mapping[str, int] = field(default_factory=dict)  # GPUs that a stage's model is spread over
    colocate: Sequence[Sequence[str]] = ()
    together: Sequence[Sequence[str]] = ()  # stages that share a process
    apart: bool = False  # every stage in a pod of its own
    coordinators: int = 1
    device: str = "auto"
    drain: str = "5s"
    share: int = SHARE  # bytes
    encryption: Encryption | None = None  # None: as the relays' own settings say
    transports: Sequence[str] = ()  # empty: as the relays' own settings say
    otlp: str = ""  # where spans are sent; empty: none are made


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started; `share` as the arenas really have it."""

    pods: tuple[Pod, ...]
    coordinators: tuple[str, ...]
    processes: tuple[ProcessSpec, ...]
    share: int


def plan(served: Sequence[Served], wishes: Wishes, ground: Ground) -> Plan:
    """Every process of the mesh for shaped pipelines, in the order of starting."""
    coordinators = [ground.addresses.coordinator(i) for i in range(wishes.coordinators)]
    pods = _pods(served, ground)
    files = [ground.file_of(one.pipeline.name) for one in served]
    stages = [process for one in served for process in _stages(one, pods, wishes, ground, coordinators=coordinators)]
    processes = (
        *(relay_of(pod, wishes, ground) for pod in pods.values()),
        *stages,
        *(_coordinator(i, address, files, wishes, ground) for i, address in enumerate(coordinators)),
        _gateway(coordinators, wishes, ground),
    )
    return Plan(
        pods=tuple(pods.values()),
        coordinators=tuple(coordinators),
        processes=tuple(
            _watched(process, ground.addresses.metrics(i), wishes.otlp) for i, process in enumerate(processes)
        ),
        share=ground.share,
    )


def count(served: Sequence[Served], wishes: Wishes) -> Counts:
    """The size of the mesh for shaped pipelines."""
    stages = sum(stage.replicas for one in served for stage in one.pipeline.stages)
    return Counts(stages, len(_members(served)), wishes.coordinators)


def _members(served: Sequence[Served]) -> dict[str, list[PipelineConfig]]:
    """Pod → the pipeline of each stage in it."""
    members: dict[str, list[PipelineConfig]] = {}
    for one in served:
        for stage in one.pipeline.stages:
            for replica in range(stage.replicas):
                members.setdefault(_pod_name(one.pipeline, stage, replica), []).append(one.pipeline)
    return members


def _pods(served: Sequence[Served], ground: Ground) -> dict[str, Pod]:
    return {
        name: Pod(
            name,
            stages[0].name,
            host=ground.addresses.pod(index),
            relay=ground.addresses.relay(index),
            folder=ground.arenas / name,
            arena=(len(stages) + 1) * ground.share,
        )
        for index, (name, stages) in enumerate(_members(served).items())
    }


def _pod_name(pipeline: PipelineConfig, stage: StageConfig, replica: int) -> str:
    return f"{pipeline.name}-{stage.placement_group}-{replica}"


def relay_of(pod: Pod, wishes: Wishes, ground: Ground) -> ProcessSpec:
    settings = {
        "FOLDER": str(pod.folder),
        "ARENA_SIZE": str(pod.arena),
        "BIND": pod.relay,
        "TOKEN_FILE": str(ground.token),
        "DRAIN": wishes.drain,
    }
    if wishes.encryption is not None:
        settings["ENCRYPTION"] = wishes.encryption
    settings |= _shown(wishes, ground, ground.certificate_of(pod), ground.key_of(pod))
    if wishes.transports:
        settings["TRANSPORTS"] = ",".join(wishes.transports)
    environment = _prefixed("OMNI_RELAY_", settings)
    return ProcessSpec(f"{RELAY}-{pod.name}", "omni_relay", Tier.RELAY, environment, RELAY, pod.pipeline)


def _stages(
    served: Served, pods: Mapping[str, Pod], wishes: Wishes, ground: Ground, *, coordinators: Sequence[str]
) -> Iterator[ProcessSpec]:
    shared = {
        "FAMILY": served.family,
        "PIPELINE": str(ground.file_of(served.pipeline.name)),
        "COORDINATORS": ",".join(coordinators),
        "NODE": "localhost",
        # One thread per process: more of them spin against each other when stages outnumber cores.
        "THREADS": "1",
        "DRAIN": wishes.drain,
        **_known_as(Component.STAGE, wishes, ground),
    }
    if served.model is not None:
        shared["MODEL"] = str(served.model)
    for process, stages in processes_of(served.pipeline.stages).items():
        names = [stage.name for stage in stages]
        for replica in range(stages[0].replicas):
            pod = pods[_pod_name(served.pipeline, stages[0], replica)]
            name = f"{served.pipeline.name}-{process}-{replica}"
            settings = shared | {
                "STAGE": ",".join(names),
                "REPLICA": name,
                "POD": pod.name,
                "BIND": f"{pod.host}:0",
                "DEVICE": wishes.device if any(stage.gpu for stage in stages) else "cpu",
                "ARENA": str(pod.folder),
            }
            environment = _prefixed("OMNI_STAGE_", settings) | {"OMP_NUM_THREADS": "1"}
            spec = ProcessSpec(name, "omni_stage", Tier.STAGE, environment, served.family, served.pipeline.name)
            yield replace(spec, replicas=replica_names(name, names))


def _coordinator(
    index: int, address: str, pipeline_files: Iterable[Path], wishes: Wishes, ground: Ground
) -> ProcessSpec:
    settings = {
        "BIND": address,
        "PIPELINES": ",".join(map(str, pipeline_files)),
        "DRAIN": wishes.drain,
        **_known_as(Component.COORDINATOR, wishes, ground),
    }
    return ProcessSpec(
        f"coordinator-{index}", "omni_coordinator", Tier.COORDINATOR, _prefixed("OMNI_COORDINATOR_", settings)
    )


def _gateway(coordinators: Sequence[str], wishes: Wishes, ground: Ground) -> ProcessSpec:
    settings = {
        "BIND": f"[{wishes.host}]:{wishes.port}" if ":" in wishes.host else f"{wishes.host}:{wishes.port}",
        "COORDINATORS": ",".join(coordinators),
        "DRAIN": wishes.drain,
        **_known_as(Component.GATEWAY, wishes, ground),
    }
    return ProcessSpec("gateway-0", "omni_gateway", Tier.GATEWAY, _prefixed("OMNI_GATEWAY_", settings))


def _known_as(component: Component, wishes: Wishes, ground: Ground) -> dict[str, str]:
    return _shown(wishes, ground, ground.certificate_for(component), ground.key_for(component))


def _shown(wishes: Wishes, ground: Ground, certificate: Path, key: Path) -> dict[str, str]:
    """TLS, where relays encrypt."""
    if wishes.encryption not in {"tls", "aead"}:
        return {}
    return {"TLS_CA": str(ground.authority), "TLS_CERT": str(certificate), "TLS_KEY": str(key)}


def _watched(process: ProcessSpec, address: str, otlp: str) -> ProcessSpec:
    """The process with its metrics served at `address`, where whoever watches the mesh looks for them, and its spans
    sent to `otlp`."""
    host, _, port = address.rpartition(":")
    settings = {"METRICS_HOST": host, "METRICS_PORT": port, **({"OTLP_ENDPOINT": otlp} if otlp else {})}
    prefixed = _prefixed(f"{process.service.upper()}_", settings)
    return replace(process, metrics=address, settings={**process.settings, **prefixed})


def _prefixed(prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {prefix + name: value for name, value in settings.items()}
