"""From a pipeline and the user's wishes to processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_cli.errors import CommandError
from omni_cli.launcher.network import OwnSubnet, SharedHost
from omni_cli.launcher.plan import Ground, Plan, Tier, Wishes, plan, shape
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality

PIPELINE = PipelineConfig(
    name="toy",
    entry="read",
    stages=(
        StageConfig(name="read", to=("think",), placement_group="front"),
        StageConfig(name="think", stream_to=("write",), gpu=True),
        StageConfig(name="write", terminal=Modality.TEXT, placement_group="front"),
    ),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.TEXT}),
)
GROUND = Ground(Path("run/pipeline.json"), Path("arenas"), OwnSubnet("127.9.9"))


def planned(wishes: Wishes) -> Plan:
    return plan(shape(PIPELINE, wishes), wishes, GROUND)


def pod_of(made: Plan, name: str) -> str:
    return next(p.settings["OMNI_STAGE_POD"] for p in made.processes if p.name == name)


def test_a_mesh_is_one_process_per_stage_a_coordinator_and_a_gateway() -> None:
    made = planned(Wishes("toy"))
    assert [p.name for p in made.processes] == ["read-0", "think-0", "write-0", "coordinator-0", "gateway-0"]
    assert [p.tier for p in made.processes] == [Tier.STAGE] * 3 + [Tier.COORDINATOR, Tier.GATEWAY]


def test_stages_of_a_placement_group_share_a_pod_and_others_have_their_own() -> None:
    made = planned(Wishes("toy"))
    assert [(pod.name, pod.host, pod.arena) for pod in made.pods] == [
        ("front-0", "127.9.9.32", Path("arenas/front-0/arena")),
        ("think-0", "127.9.9.33", Path("arenas/think-0/arena")),
    ]
    read, think, write = made.processes[:3]
    assert read.settings["OMNI_STAGE_ARENA"] == write.settings["OMNI_STAGE_ARENA"]
    assert read.settings["OMNI_STAGE_BIND"] == "127.9.9.32:0"
    assert think.settings["OMNI_STAGE_ARENA"] != read.settings["OMNI_STAGE_ARENA"]


def test_colocate_overrides_the_placement_of_the_pipeline() -> None:
    made = planned(Wishes("toy", colocate=[("read", "think")]))
    assert pod_of(made, "read-0") == pod_of(made, "think-0") == "read-think-0"
    assert pod_of(made, "write-0") == "front-0"


def test_each_replica_of_a_group_is_a_pod_of_its_own() -> None:
    made = planned(Wishes("toy", replicas={"write": 2}))
    assert pod_of(made, "write-0") == pod_of(made, "read-0") == "front-0"
    assert pod_of(made, "write-1") == "front-1"


def test_every_stage_dials_every_coordinator_and_so_does_the_gateway() -> None:
    made = planned(Wishes("toy", coordinators=2))
    addresses = "127.9.9.2:7070,127.9.9.3:7070"
    assert [p.settings["OMNI_COORDINATOR_BIND"] for p in made.processes if p.tier is Tier.COORDINATOR] == (
        addresses.split(",")
    )
    assert {p.settings["OMNI_STAGE_COORDINATORS"] for p in made.processes if p.tier is Tier.STAGE} == {addresses}
    assert made.processes[-1].settings["OMNI_GATEWAY_COORDINATORS"] == addresses


def test_only_stages_that_use_a_gpu_get_the_device_asked_for() -> None:
    read, think, _, *_ = planned(Wishes("toy", device="cuda")).processes
    assert (read.settings["OMNI_STAGE_DEVICE"], think.settings["OMNI_STAGE_DEVICE"]) == ("cpu", "cuda")


def test_the_model_is_set_only_when_there_is_one() -> None:
    assert "OMNI_STAGE_MODEL" not in planned(Wishes("toy")).processes[0].settings
    assert planned(Wishes("toy", model=Path("m"))).processes[0].settings["OMNI_STAGE_MODEL"] == "m"


@pytest.mark.parametrize("wishes", [Wishes("toy", replicas={"sing": 2}), Wishes("toy", colocate=[("read", "sing")])])
def test_a_stage_that_is_not_there_is_named_with_those_that_are(wishes: Wishes) -> None:
    with pytest.raises(CommandError, match=r"no stage 'sing'\. It has read, think, write\."):
        shape(PIPELINE, wishes)


def test_a_stage_cannot_be_in_two_pods() -> None:
    with pytest.raises(CommandError, match="'read' is in two --colocate groups"):
        shape(PIPELINE, Wishes("toy", colocate=[("read", "think"), ("read", "write")]))


def test_where_there_is_one_loopback_address_coordinators_differ_by_port() -> None:
    ground = Ground(Path("p"), Path("a"), SharedHost((7001, 7002)))
    made = plan(shape(PIPELINE, Wishes("toy")), Wishes("toy", coordinators=2), ground)
    assert made.processes[-1].settings["OMNI_GATEWAY_COORDINATORS"] == "127.0.0.1:7001,127.0.0.1:7002"
