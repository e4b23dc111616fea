"""A pipeline as data: its stages, the edges between them, their limits. The only list of stages anywhere.

Rules, checked when a PipelineConfig is made:

* one entry stage; every stage is reachable from it; the graph has no cycle;
* `to` are payload edges, `stream_to` are chunk edges; both may join the same two stages;
* `wait_for` names stages whose payloads join here, and each of them has this stage in its `to`;
* a stage is terminal (its output goes to the caller) exactly when it has no edge out, and every stage leads to one;
* stages of one `process` share a placement group and a number of replicas, and no other stage has the process's name;
* the default voice is one of the voices, if there are any;
* hooks of the model's code may only narrow this graph for one request, never widen it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from omni_common.request import Modality, Task


class StageConfig(BaseModel):
    """One stage of a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    to: tuple[str, ...] = Field(default=(), description="Stages that get this stage's whole result.")
    stream_to: tuple[str, ...] = Field(default=(), description="Stages that get its chunks as they are made.")
    wait_for: tuple[str, ...] = Field(
        default=(), description="Stages whose payloads join here; a request may need fewer of them."
    )
    terminal: Modality | None = Field(default=None, description="What it sends to the caller: text or audio.")
    needs: Modality | None = Field(
        default=None, description="Visited only by requests that produce this modality. None: by all."
    )
    gpu: bool = Field(default=False, description="Runs on a GPU where there is one.")
    tensor_parallel: bool = Field(default=False, description="Its model can be spread over several GPUs.")
    tp_size: PositiveInt = Field(default=1, description="GPUs that each replica's model is spread over.")
    replicas: PositiveInt = 1
    placement_group: str = Field(default="", description="Stages with the same name share a pod. Empty: its own.")
    process: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9_-]*)?$",
        description="Stages with the same name share a process, and their values. Empty: a process of its own.",
    )
    max_running: PositiveInt = Field(default=16, description="Requests in one batch at most.")
    max_waiting: PositiveInt = Field(default=64, description="Requests that may wait beside them.")
    max_batch_wait_ms: float = Field(default=0.0, ge=0, description="How long a batch waits to fill.")
    credits: PositiveInt = Field(default=64, description="Chunks of one request that may be under way to it per edge.")

    @property
    def process_name(self) -> str:
        """Of the process that its replicas run in."""
        return self.process or self.name


# What a request for a task brings at least, and what it wants; of a chat, that depends on the caller.
_NEEDED: Mapping[Task, tuple[Modality, Modality]] = {
    Task.SPEECH: (Modality.TEXT, Modality.AUDIO),
    Task.TRANSCRIPTION: (Modality.AUDIO, Modality.TEXT),
    Task.TRANSLATION: (Modality.AUDIO, Modality.TEXT),
}


class PipelineConfig(BaseModel):
    """A model's declared graph of stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    entry: str
    stages: tuple[StageConfig, ...]
    input_modalities: frozenset[Modality]
    output_modalities: frozenset[Modality]
    tasks: frozenset[Task] = Field(default=frozenset({Task.CHAT}), min_length=1)
    languages: tuple[str, ...] = Field(default=(), description="ISO 639-1 codes of what it hears or speaks.")
    voices: tuple[str, ...] = ()
    default_voice: str = ""

    @cached_property
    def by_name(self) -> Mapping[str, StageConfig]:
        return {stage.name: stage for stage in self.stages}

    def stage(self, name: str) -> StageConfig:
        """Raises KeyError with the names there are."""
        try:
            return self.by_name[name]
        except KeyError:
            raise KeyError(f"pipeline '{self.name}' has no stage '{name}'; it has {', '.join(self.by_name)}") from None

    def terminals(self, modalities: frozenset[Modality]) -> frozenset[str]:
        """The terminal stages for these output modalities. One for text, where there is any, always takes part, since
        speech is made from what it writes."""
        return frozenset(s.name for s in self.stages if s.terminal in modalities or s.terminal is Modality.TEXT)

    def visited(self, modalities: frozenset[Modality]) -> frozenset[str]:
        """The stages that a request for these output modalities may visit."""
        return frozenset(s.name for s in self.stages if s.needs is None or s.needs in modalities)

    @model_validator(mode="after")
    def _graph_holds(self) -> Self:
        names = [s.name for s in self.stages]
        _require(len(names) == len(set(names)), f"two stages of '{self.name}' have the same name")
        _require(self.entry in names, f"the entry stage '{self.entry}' is not among the stages")
        for stage in self.stages:
            for target in (*stage.to, *stage.stream_to, *stage.wait_for):
                _require(target in names, f"stage '{stage.name}' names '{target}', which is not a stage")
            for source in stage.wait_for:
                _require(
                    stage.name in self.by_name[source].to,
                    f"stage '{stage.name}' waits for '{source}', which sends no payload to it",
                )
            leads_on = bool(stage.to or stage.stream_to)
            _require(
                leads_on == (stage.terminal is None),
                f"stage '{stage.name}' must either lead to other stages or be terminal",
            )
        _require(
            self.default_voice in (self.voices or ("",)), f"the default voice '{self.default_voice}' is not a voice"
        )
        reached = self._reachable()
        _require(set(names) <= reached, f"no path leads to {sorted(set(names) - reached)} from '{self.entry}'")
        return self

    @model_validator(mode="after")
    def _processes_hold(self) -> Self:
        check_processes(self.stages)
        return self

    @model_validator(mode="after")
    def _tasks_are_possible(self) -> Self:
        for task in sorted(self.tasks & _NEEDED.keys()):
            takes, makes = _NEEDED[task]
            _require(takes in self.input_modalities, f"'{self.name}' cannot do {task} without taking {takes}")
            _require(makes in self.output_modalities, f"'{self.name}' cannot do {task} without producing {makes}")
        return self

    def _reachable(self) -> set[str]:
        done: set[str] = set()
        path: list[str] = []

        def visit(name: str) -> None:
            _require(name not in path, f"the stages {' → '.join([*path, name])} form a cycle")
            if name in done:
                return
            path.append(name)
            stage = self.by_name[name]
            for target in (*stage.to, *stage.stream_to):
                visit(target)
            path.pop()
            done.add(name)

        visit(self.entry)
        return done


def processes_of(stages: Iterable[StageConfig]) -> Mapping[str, Sequence[StageConfig]]:
    """The stages by their process's name, both in the order of the stages."""
    processes: dict[str, list[StageConfig]] = {}
    for stage in stages:
        processes.setdefault(stage.process_name, []).append(stage)
    return processes


def check_processes(stages: Iterable[StageConfig]) -> None:
    """Raises ValueError for stages that cannot share the process that they name."""
    for name, (first, *others) in processes_of(stages).items():
        for stage in others:
            both = f"stages '{first.name}' and '{stage.name}'"
            _require(first.process == stage.process, f"the process '{name}' has the name of a stage outside it")
            _require(
                first.placement_group == stage.placement_group,
                f"{both} share the process '{name}', but not a placement group",
            )
            _require(
                first.replicas == stage.replicas,
                f"{both} share the process '{name}', but have {first.replicas} and {stage.replicas} replicas",
            )


def replica_names(process: str, stages: Sequence[str]) -> tuple[str, ...]:
    """The name of each stage's replica in a process: the process's own where it runs one stage only, else NAME.STAGE,
    which no other has, since stages' names have no dot in them."""
    if len(stages) == 1:
        return (process,)
    return tuple(f"{process}.{stage}" for stage in stages)


def load_pipeline(path: Path) -> PipelineConfig:
    """Reads a pipeline file (JSON). Raises pydantic.ValidationError, a ValueError, when it does not hold."""
    return PipelineConfig.model_validate_json(path.read_bytes())


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
