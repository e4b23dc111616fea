"""What coordinators tell of a pipeline is what gateways understand."""

from __future__ import annotations

import pytest

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality, Task
from omni_coordinator.core.bindings import Phase, Replica
from omni_coordinator.core.roster import PipelineState
from omni_coordinator.pipeline_status import render_pipeline
from omni_gateway.pipelines import PipelineView, ReplicaView, StageView, parse_pipeline

CONFIG = PipelineConfig(
    name="voice",
    entry="speak",
    stages=(StageConfig(name="speak", terminal=Modality.AUDIO),),
    input_modalities=frozenset({Modality.TEXT, Modality.AUDIO, Modality.IMAGE}),
    output_modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
    tasks=frozenset({Task.SPEECH, Task.TRANSLATION}),
    languages=("fr", "en"),
    voices=("joe", "amy"),
    default_voice="joe",
)


@pytest.mark.parametrize("taking", [True, False])
def test_a_pipeline_is_understood_as_it_was_told(taking: bool) -> None:
    replica = Replica(1, "voice", "speak", "speak-0", "127.0.0.1:7100", "pod-a", 8, phase=Phase.READY, tensors_total=3)
    told = render_pipeline(PipelineState(CONFIG, {"speak": [replica]}), taking=taking)
    assert parse_pipeline(told) == PipelineView(
        name="voice",
        ready=taking,
        input_modalities=CONFIG.input_modalities,
        output_modalities=CONFIG.output_modalities,
        voices=CONFIG.voices,
        default_voice="joe",
        tasks=CONFIG.tasks,
        languages=CONFIG.languages,
        stages=(StageView("speak", 1, (ReplicaView("speak-0", "ready", 0, 3),)),),
    )


@pytest.mark.parametrize("task", Task)
def test_every_task_is_understood(task: Task) -> None:
    config = CONFIG.model_copy(update={"tasks": frozenset({task})})
    assert parse_pipeline(render_pipeline(PipelineState(config, {}), taking=True)).tasks == {task}


def test_a_task_of_a_newer_coordinator_is_left_out() -> None:
    told = pb.PipelineStatus(name="voice")
    told.MergeFromString(b"\x42\x02\x02\x63")  # tasks: speech, and 99
    assert parse_pipeline(told).tasks == {Task.SPEECH}
