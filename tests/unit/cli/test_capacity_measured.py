"""What a request cost each stage, from pages as the processes write them; and the words of a plan."""

from __future__ import annotations

import pytest
import yaml

from omni_cli.capacity.measured import measured, pipelines_in
from omni_cli.capacity.sizing import Load, needs
from omni_cli.capacity.words import sentences, values
from omni_cli.top.change import Seen, Snapshot
from omni_cli.top.exposition import parse_page
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality

CONFIG = PipelineConfig(
    name="toy",
    entry="read",
    stages=(
        StageConfig(name="read", to=("think",), placement_group="front"),
        StageConfig(name="think", to=("voice",), gpu=True, placement_group="front", max_running=4),
        StageConfig(name="voice", terminal=Modality.AUDIO, gpu=True, placement_group="back", max_running=8),
    ),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.AUDIO}),
)


def stage(name: str, *, visits: float, held: float, steps: float, busy: float, batch: float = 1.0) -> str:
    label = f'{{stage="{name}"}}'
    return (
        f"omni_stage_live_requests{label} 0\n"
        f"omni_stage_running_seconds_count{label} {visits}\nomni_stage_running_seconds_sum{label} {held}\n"
        f"omni_stage_step_seconds_count{label} {steps}\nomni_stage_step_seconds_sum{label} {busy}\n"
        f"omni_stage_batch_size_count{label} {steps}\nomni_stage_batch_size_sum{label} {steps * batch}\n"
    )


def seen(name: str, text: str, pipeline: str = "toy", group: str = "") -> Seen:
    return Seen(name, pipeline, parse_page(text), group)


COORDINATOR = seen(
    "coordinator-0",
    'omni_requests_total{pipeline="toy",outcome="completed"} 10\n'
    'omni_requests_total{pipeline="other",outcome="completed"} 90\n',
    "",
)
GATEWAY = seen("gateway-0", 'omni_audio_seconds_total{pipeline="toy",direction="out"} 40\n', "")
THINKERS = [seen(f"toy-think-{n}", stage("think", visits=5, held=10, steps=25, busy=2.5, batch=2.0)) for n in range(2)]
VOICE = seen("toy-voice-0", stage("voice", visits=5, held=20, steps=100, busy=4.0))


def test_costs_are_those_of_a_request_over_all_replicas() -> None:
    found = measured(Snapshot(0, [COORDINATOR, GATEWAY, *THINKERS, VOICE]), None, "toy", CONFIG)
    assert (found.requests, found.audio_seconds) == (10, 4.0)
    think, voice = found.costs["think"], found.costs["voice"]
    assert (think.busy, think.held, think.steps, think.batch) == (0.5, 2.0, 10.0, 2.0)
    # Only half of the requests came by here, so that one of them costs half of a visit.
    assert (voice.busy, voice.held, voice.steps) == (0.4, 2.0, 20.0)
    assert "read" not in found.costs
    assert [(s.stage, s.group, s.shares, s.max_running) for s in found.shapes] == [
        ("read", "front", "read", 16),
        ("think", "front", "gpu", 4),
        ("voice", "back", "gpu", 8),
    ]


def test_without_a_coordinator_the_stage_that_all_were_in_tells_how_many_there_were() -> None:
    assert measured(Snapshot(0, [*THINKERS, VOICE]), None, "toy", CONFIG).requests == 10


def test_an_interval_counts_what_grew_and_a_process_that_began_anew_counts_from_nothing() -> None:
    before = Snapshot(0, [COORDINATOR, THINKERS[0], VOICE])
    now = Snapshot(
        9,
        [
            seen("coordinator-0", 'omni_requests_total{pipeline="toy",outcome="completed"} 14\n', ""),
            seen(THINKERS[0].name, stage("think", visits=7, held=14, steps=45, busy=4.5)),
            seen("toy-voice-0", stage("voice", visits=2, held=8, steps=40, busy=1.0)),
        ],
    )
    found = measured(now, before, "toy", CONFIG)
    assert found.requests == 4
    assert found.costs["think"].busy == 0.5
    assert found.costs["voice"].busy == 0.25


def test_a_pipeline_that_is_not_declared_here_is_known_by_its_processes() -> None:
    pods = [seen("pod/a", stage("x", visits=1, held=1, steps=1, busy=1), "own", "g"), COORDINATOR]
    found = measured(Snapshot(0, pods), None, "own", None)
    assert [(s.stage, s.group, s.shares) for s in found.shapes] == [("x", "g", "pod/a")]
    assert pipelines_in(Snapshot(0, pods)) == ["own"]


def test_the_plan_is_told_in_sentences_and_as_values() -> None:
    found = measured(Snapshot(0, [COORDINATOR, GATEWAY, *THINKERS, VOICE]), None, "toy", CONFIG)
    load = Load(5, stretch=2, utilisation=0.5)
    needed = needs(found.shapes, found.costs, load)
    assert list(sentences(found, load, needed)) == [
        "toy: 5 requests/s, 8.0 s of audio each, replicas at most 50% used, from 10 measured requests.",
        "  front: 10 replicas. think works 1 s for a request: 5/s take 5.00 replicas' time, at 50% use that is 10.00. "
        "Mean batch: think 2.0. No request was in read.",
        "  back: 8 replicas. voice works 0.8 s for a request: 5/s take 4.00 replicas' time, at 50% use that is 8.00. "
        "Mean batch: voice 1.0.",
        "  The ratio front:back is 10:8.",
        "  Answers are taken to be 2 times as long as the measured ones, in every stage that takes more than one step "
        "for a request.",
    ]
    assert yaml.safe_load(values({"toy": needed})) == {
        "pipelines": {"toy": {"placementGroups": {"front": {"replicas": 10}, "back": {"replicas": 8}}}}
    }


@pytest.mark.parametrize("group", ["", "elsewhere"])
def test_the_group_that_a_pod_says_holds(group: str) -> None:
    voice = seen("pod/voice", stage("voice", visits=1, held=1, steps=1, busy=1), group=group)
    shapes = {s.stage: s.group for s in measured(Snapshot(0, [voice]), None, "toy", CONFIG).shapes}
    assert shapes["voice"] == (group or "back")
