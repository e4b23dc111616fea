"""From a pipeline and the user's wishes to processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omni_cli.errors import CommandError
from omni_cli.launcher.network import OwnSubnet, SharedHost
from omni_cli.launcher.plan import Ground, Plan, Served, Tier, Wishes, plan
from omni_cli.launcher.shape import shape
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality


def pipeline(name: str) -> PipelineConfig:
    return PipelineConfig(
        name=name,
        entry="read",
        stages=(
            StageConfig(name="read", to=("think",), placement_group="front"),
            StageConfig(name="think", stream_to=("write",), gpu=True),
            StageConfig(name="write", terminal=Modality.TEXT, placement_group="front"),
        ),
        input_modalities=frozenset({Modality.TEXT}),
        output_modalities=frozenset({Modality.TEXT}),
    )


def served(*names: str) -> tuple[Served, ...]:
    return tuple(Served(f"{name}-family", pipeline(name)) for name in names)


TOY = served("toy")
GROUND = Ground(Path("run"), Path("arenas"), OwnSubnet("127.9.9"))


def planned(wishes: Wishes) -> Plan:
    return plan(shape(wishes), wishes, GROUND)


def pod_of(made: Plan, name: str) -> str:
    return next(p.settings["OMNI_STAGE_POD"] for p in made.processes if p.name == name)


def test_a_mesh_is_one_process_per_stage_a_coordinator_and_a_gateway() -> None:
    made = planned(Wishes(TOY))
    assert [p.name for p in made.processes] == [
        "toy-read-0",
        "toy-think-0",
        "toy-write-0",
        "coordinator-0",
        "gateway-0",
    ]
    assert [p.tier for p in made.processes] == [Tier.STAGE] * 3 + [Tier.COORDINATOR, Tier.GATEWAY]


def test_stages_of_a_placement_group_share_a_pod_and_others_have_their_own() -> None:
    made = planned(Wishes(TOY))
    assert [(pod.name, pod.host, pod.arena) for pod in made.pods] == [
        ("toy-front-0", "127.9.9.32", Path("arenas/toy-front-0/arena")),
        ("toy-think-0", "127.9.9.33", Path("arenas/toy-think-0/arena")),
    ]
    read, think, write = made.processes[:3]
    assert read.settings["OMNI_STAGE_ARENA"] == write.settings["OMNI_STAGE_ARENA"]
    assert read.settings["OMNI_STAGE_BIND"] == "127.9.9.32:0"
    assert think.settings["OMNI_STAGE_ARENA"] != read.settings["OMNI_STAGE_ARENA"]


def test_colocate_overrides_the_placement_of_the_pipeline() -> None:
    made = planned(Wishes(TOY, colocate=[("read", "think")]))
    assert pod_of(made, "toy-read-0") == pod_of(made, "toy-think-0") == "toy-read-think-0"
    assert pod_of(made, "toy-write-0") == "toy-front-0"


def test_each_replica_of_a_group_is_a_pod_of_its_own() -> None:
    made = planned(Wishes(TOY, replicas={"write": 2}))
    assert pod_of(made, "toy-write-0") == pod_of(made, "toy-read-0") == "toy-front-0"
    assert pod_of(made, "toy-write-1") == "toy-front-1"


def test_every_stage_dials_every_coordinator_and_so_does_the_gateway() -> None:
    made = planned(Wishes(TOY, coordinators=2))
    addresses = "127.9.9.2:7070,127.9.9.3:7070"
    assert [p.settings["OMNI_COORDINATOR_BIND"] for p in made.processes if p.tier is Tier.COORDINATOR] == (
        addresses.split(",")
    )
    assert {p.settings["OMNI_STAGE_COORDINATORS"] for p in made.processes if p.tier is Tier.STAGE} == {addresses}
    assert made.processes[-1].settings["OMNI_GATEWAY_COORDINATORS"] == addresses


def test_only_stages_that_use_a_gpu_get_the_device_asked_for() -> None:
    read, think, _, *_ = planned(Wishes(TOY, device="cuda")).processes
    assert (read.settings["OMNI_STAGE_DEVICE"], think.settings["OMNI_STAGE_DEVICE"]) == ("cpu", "cuda")


def test_the_model_is_set_only_when_there_is_one() -> None:
    assert "OMNI_STAGE_MODEL" not in planned(Wishes(TOY)).processes[0].settings
    assert planned(Wishes([replace(TOY[0], model=Path("m"))])).processes[0].settings["OMNI_STAGE_MODEL"] == "m"


@pytest.mark.parametrize("wishes", [Wishes(TOY, replicas={"sing": 2}), Wishes(TOY, colocate=[("read", "sing")])])
def test_a_stage_that_is_not_there_is_named_with_those_that_are(wishes: Wishes) -> None:
    with pytest.raises(CommandError, match=r"no stage 'sing'\. Pipeline 'toy' has read, think, write\."):
        shape(wishes)


def test_a_stage_cannot_be_in_two_pods() -> None:
    with pytest.raises(CommandError, match="'read' is in two --colocate groups"):
        shape(Wishes(TOY, colocate=[("read", "think"), ("toy/read", "write")]))


def test_where_there_is_one_loopback_address_coordinators_differ_by_port() -> None:
    ground = Ground(Path("p"), Path("a"), SharedHost((7001, 7002)))
    wishes = Wishes(TOY, coordinators=2)
    made = plan(shape(wishes), wishes, ground)
    assert made.processes[-1].settings["OMNI_GATEWAY_COORDINATORS"] == "127.0.0.1:7001,127.0.0.1:7002"


def test_several_pipelines_have_stages_and_pods_of_their_own_behind_one_gateway() -> None:
    made = planned(Wishes(served("a", "b")))
    assert [p.name for p in made.processes] == (
        ["a-read-0", "a-think-0", "a-write-0", "b-read-0", "b-think-0", "b-write-0", "coordinator-0", "gateway-0"]
    )
    assert [pod.name for pod in made.pods] == ["a-front-0", "a-think-0", "b-front-0", "b-think-0"]
    assert len({pod.host for pod in made.pods}) == len({pod.arena for pod in made.pods}) == 4
    stages = made.processes[:6]
    assert [p.settings["OMNI_STAGE_PIPELINE"] for p in stages] == ["run/a.json"] * 3 + ["run/b.json"] * 3
    assert {p.family: p.settings["OMNI_STAGE_FAMILY"] for p in stages} == {
        "a-family": "a-family",
        "b-family": "b-family",
    }
    assert made.processes[6].settings["OMNI_COORDINATOR_PIPELINES"] == "run/a.json,run/b.json"


def test_each_pipeline_has_its_own_weights() -> None:
    one, other = served("a", "b")
    made = planned(Wishes([one, replace(other, model=Path("m"))]))
    assert {(p.family, p.settings.get("OMNI_STAGE_MODEL")) for p in made.processes if p.tier is Tier.STAGE} == {
        ("a-family", None),
        ("b-family", "m"),
    }


def test_a_stage_that_many_pipelines_have_is_named_with_its_pipeline() -> None:
    made = planned(Wishes(served("a", "b"), replicas={"b/write": 2}, colocate=[("a/read", "a/think")]))
    assert [p.name for p in made.processes if "write" in p.name] == ["a-write-0", "b-write-0", "b-write-1"]
    assert pod_of(made, "a-read-0") == pod_of(made, "a-think-0") == "a-read-think-0"
    assert pod_of(made, "b-read-0") == "b-front-0"


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (Wishes(served("a", "b"), replicas={"read": 2}), r"2 of the pipelines .* 'read': write a/read or b/read\."),
        (Wishes(served("a", "b"), replicas={"c/read": 2}), r"Pipeline 'c' is not served; a, b would be\."),
        (Wishes(served("a", "b"), replicas={"b/sing": 2}), r"Pipeline 'b' has no stage 'sing'\. It has read, think,"),
        (Wishes(served("a", "b"), colocate=[("a/read", "b/read")]), "Only stages of one pipeline"),
        (Wishes(served("a", "a")), "A pipeline is served once"),
    ],
)
def test_what_cannot_be_served_so_is_said_in_a_sentence(wishes: Wishes, sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        shape(wishes)
