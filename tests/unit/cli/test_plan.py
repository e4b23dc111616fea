"""From a pipeline and the user's wishes to processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omni_cli.errors import CommandError
from omni_cli.launcher.ground import LEAST_SHARE, MIB, Counts, Ground, share_of
from omni_cli.launcher.network import OwnSubnet, SharedHost
from omni_cli.launcher.plan import Encryption, Plan, ProcessSpec, Served, Tier, Wishes, count, plan
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
    return named(made, name).settings["OMNI_STAGE_POD"]


def named(made: Plan, name: str) -> ProcessSpec:
    return next(p for p in made.processes if p.name == name)


def of(made: Plan, tier: Tier) -> list[ProcessSpec]:
    return [p for p in made.processes if p.tier is tier]


def test_a_mesh_is_a_relay_per_pod_a_process_per_stage_a_coordinator_and_a_gateway() -> None:
    made = planned(Wishes(TOY))
    assert [p.name for p in made.processes] == [
        "relay-toy-front-0",
        "relay-toy-think-0",
        "toy-read-0",
        "toy-think-0",
        "toy-write-0",
        "coordinator-0",
        "gateway-0",
    ]
    assert [p.tier for p in made.processes] == [Tier.RELAY] * 2 + [Tier.STAGE] * 3 + [Tier.COORDINATOR, Tier.GATEWAY]


def test_stages_of_a_placement_group_share_a_pod_and_others_have_their_own() -> None:
    made = planned(Wishes(TOY))
    assert [(pod.name, pod.host, pod.folder) for pod in made.pods] == [
        ("toy-front-0", "127.9.9.32", Path("arenas/toy-front-0")),
        ("toy-think-0", "127.9.9.33", Path("arenas/toy-think-0")),
    ]
    read, think, write = of(made, Tier.STAGE)
    assert read.settings["OMNI_STAGE_ARENA"] == write.settings["OMNI_STAGE_ARENA"]
    assert read.settings["OMNI_STAGE_BIND"] == "127.9.9.32:0"
    assert think.settings["OMNI_STAGE_ARENA"] != read.settings["OMNI_STAGE_ARENA"]


def test_the_relay_of_a_pod_has_its_folder_its_address_and_a_share_for_each_stage_and_for_other_pods() -> None:
    front, think = of(planned(Wishes(TOY)), Tier.RELAY)
    assert (front.service, front.family, front.pipeline) == ("omni_relay", "relay", "toy")
    assert front.settings == {
        "OMNI_RELAY_FOLDER": "arenas/toy-front-0",
        "OMNI_RELAY_ARENA_SIZE": str(3 * 64 * MIB),
        "OMNI_RELAY_BIND": "127.9.9.32:7080",
        "OMNI_RELAY_TOKEN_FILE": "run/token",
        "OMNI_RELAY_DRAIN": "5s",
        "OMNI_RELAY_METRICS_HOST": "127.9.9.1",
        "OMNI_RELAY_METRICS_PORT": "9100",
    }
    assert think.settings["OMNI_RELAY_ARENA_SIZE"] == str(2 * 64 * MIB)
    assert think.settings["OMNI_RELAY_BIND"] == "127.9.9.33:7080"


@pytest.mark.parametrize("encryption", ["tls", "aead"])
def test_relays_that_encrypt_have_a_certificate_each_and_one_authority(encryption: Encryption) -> None:
    front, think = of(planned(Wishes(TOY, encryption=encryption)), Tier.RELAY)
    assert front.settings["OMNI_RELAY_ENCRYPTION"] == encryption
    assert front.settings["OMNI_RELAY_TLS_CA"] == think.settings["OMNI_RELAY_TLS_CA"] == "run/ca.pem"
    assert front.settings["OMNI_RELAY_TLS_CERT"] == "run/toy-front-0.pem"
    assert front.settings["OMNI_RELAY_TLS_KEY"] == "run/toy-front-0.key"
    assert think.settings["OMNI_RELAY_TLS_CERT"] != front.settings["OMNI_RELAY_TLS_CERT"]


@pytest.mark.parametrize(
    ("tier", "component"), [(Tier.STAGE, "stage"), (Tier.COORDINATOR, "coordinator"), (Tier.GATEWAY, "gateway")]
)
def test_where_relays_encrypt_grpc_does_too_and_every_kind_of_service_has_its_certificate(
    tier: Tier, component: str
) -> None:
    for process in of(planned(Wishes(TOY, encryption="aead")), tier):
        files = [process.settings[f"OMNI_{component.upper()}_TLS_{name}"] for name in ("CERT", "KEY", "CA")]
        assert files == [f"run/omni-{component}.pem", f"run/omni-{component}.key", "run/ca.pem"]
    for process in of(planned(Wishes(TOY, encryption="none")), tier):
        assert not [name for name in process.settings if "TLS" in name]


def test_relays_that_do_not_encrypt_need_no_certificate() -> None:
    relay = of(planned(Wishes(TOY, encryption="none")), Tier.RELAY)[0]
    assert relay.settings["OMNI_RELAY_ENCRYPTION"] == "none"
    assert not [name for name in relay.settings if "TLS" in name]


def test_stages_that_are_wished_together_are_one_process_in_one_pod() -> None:
    made = planned(Wishes(TOY, together=[("read", "think")], replicas={"read": 2, "think": 2}, device="cuda"))
    names = [p.name for p in of(made, Tier.STAGE)]
    assert names == ["toy-read-think-0", "toy-read-think-1", "toy-write-0"]
    both, alone = named(made, "toy-read-think-1"), named(made, "toy-write-0")
    assert both.settings["OMNI_STAGE_STAGE"] == "read,think"
    assert both.settings["OMNI_STAGE_REPLICA"] == "toy-read-think-1"
    assert both.settings["OMNI_STAGE_DEVICE"] == "cuda"
    assert both.replicas == ("toy-read-think-1.read", "toy-read-think-1.think")
    assert alone.replicas == ("toy-write-0",)
    assert pod_of(made, "toy-read-think-1") == "toy-read-think-1"
    pod = next(pod for pod in made.pods if pod.name == "toy-read-think-1")
    assert pod.arena == 3 * 64 * MIB


def test_a_shaped_pipeline_finds_its_stages_as_they_are_shaped() -> None:
    assert TOY[0].pipeline.stage("read").process == ""
    (one,) = shape(Wishes(TOY, together=[("read", "think")], replicas={"write": 2}))
    assert one.pipeline.stage("read").process_name == "read-think"
    assert one.pipeline.stage("write").replicas == 2


def test_a_stage_that_can_be_spread_over_gpus_is_spread_as_wished() -> None:
    spread = [stage.model_copy(update={"tensor_parallel": stage.name == "think"}) for stage in TOY[0].pipeline.stages]
    able = [replace(TOY[0], pipeline=TOY[0].pipeline.model_copy(update={"stages": tuple(spread)}))]
    (one,) = shape(Wishes(able, tp={"think": 2}))
    assert {stage.name: stage.tp_size for stage in one.pipeline.stages} == {"read": 1, "think": 2, "write": 1}
    with pytest.raises(CommandError, match="Stage 'read' runs on one GPU; leave out --tp read=2"):
        shape(Wishes(able, tp={"toy/read": 2}))


def test_stages_that_share_a_pod_anyway_stay_in_it_together() -> None:
    made = planned(Wishes(TOY, together=[("read", "write")]))
    assert [pod.name for pod in made.pods] == ["toy-front-0", "toy-think-0"]
    wished = Wishes(TOY, colocate=[("read", "think", "write")], together=[("read", "think")])
    assert {pod_of(planned(wished), name) for name in ("toy-read-think-0", "toy-write-0")} == {"toy-read-think-write-0"}


def test_a_pipeline_may_declare_what_shares_a_process_and_apart_undoes_it() -> None:
    stages = [
        stage.model_copy(update={"process": "ends" if stage.placement_group else ""})
        for stage in TOY[0].pipeline.stages
    ]
    declared = [replace(TOY[0], pipeline=TOY[0].pipeline.model_copy(update={"stages": tuple(stages)}))]
    assert [p.name for p in of(planned(Wishes(declared)), Tier.STAGE)] == ["toy-ends-0", "toy-think-0"]
    apart = of(planned(Wishes(declared, apart=True)), Tier.STAGE)
    assert [p.name for p in apart] == ["toy-read-0", "toy-think-0", "toy-write-0"]


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        (Wishes(TOY, together=[("read", "think")], apart=True), "leave out --together"),
        (Wishes(TOY, together=[("read", "think")], replicas={"read": 2}), "have 2 and 1 replicas"),
        (Wishes(TOY, together=[("read", "think")], colocate=[("read", "write")]), "but not a placement group"),
        (Wishes(TOY, together=[("read", "think"), ("think", "write")]), "'think' is in two --together groups"),
        (Wishes(served("a", "b"), together=[("a/read", "b/read")]), "--together takes no others"),
    ],
)
def test_stages_that_cannot_be_together_are_refused_with_a_sentence(wishes: Wishes, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        shape(wishes)


def test_transports_are_set_only_when_they_are_wished() -> None:
    assert "OMNI_RELAY_TRANSPORTS" not in of(planned(Wishes(TOY)), Tier.RELAY)[0].settings
    relay = of(planned(Wishes(TOY, transports=("ucx", "tcp"))), Tier.RELAY)[0]
    assert relay.settings["OMNI_RELAY_TRANSPORTS"] == "ucx,tcp"


def test_every_process_serves_its_metrics_at_an_address_of_its_own() -> None:
    made = planned(Wishes(TOY, coordinators=2))
    assert [p.metrics for p in made.processes] == [f"127.9.9.1:{9100 + i}" for i in range(8)]
    gateway = made.processes[-1].settings
    assert (gateway["OMNI_GATEWAY_METRICS_HOST"], gateway["OMNI_GATEWAY_METRICS_PORT"]) == ("127.9.9.1", "9107")


def test_the_size_of_a_mesh_is_known_before_it_is_planned() -> None:
    wishes = Wishes(TOY, replicas={"write": 2}, coordinators=2)
    counts = count(shape(wishes), wishes)
    assert (counts.stages, counts.pods, counts.coordinators) == (4, 3, 2)
    made = planned(wishes)
    assert (len(made.processes), len(made.pods)) == (counts.processes, counts.pods)
    assert sum(pod.arena for pod in made.pods) == counts.shares * wishes.share


@pytest.mark.parametrize(("room", "share"), [(1000, 64), (640, 64), (639, 63), (160, 16)])
def test_a_share_shrinks_to_what_there_is_room_for(room: int, share: int) -> None:
    assert share_of(room * MIB, Counts(stages=7, pods=3, coordinators=1), wished=64 * MIB) == share * MIB


def test_too_little_room_to_work_with_is_refused() -> None:
    with pytest.raises(CommandError, match="need 160 MiB at least; there is room for 159 MiB"):
        share_of(160 * MIB - 1, Counts(stages=7, pods=3, coordinators=1), wished=LEAST_SHARE)


def test_apart_gives_every_stage_a_pod() -> None:
    made = planned(Wishes(TOY, apart=True, replicas={"write": 2}))
    assert [pod.name for pod in made.pods] == ["toy-read-0", "toy-think-0", "toy-write-0", "toy-write-1"]


def test_apart_and_colocate_contradict_each_other() -> None:
    with pytest.raises(CommandError, match="leave out --colocate"):
        shape(Wishes(TOY, apart=True, colocate=[("read", "think")]))


def test_a_transport_that_would_go_round_the_encryption_is_refused() -> None:
    with pytest.raises(CommandError, match="by ucx or nixl cannot be encrypted"):
        shape(Wishes(TOY, encryption="aead", transports=("ucx", "tcp", "nixl")))
    assert shape(Wishes(TOY, encryption="tls", transports=("tcp",)))
    assert shape(Wishes(TOY, encryption="none", transports=("ucx",)))


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
    assert [p.settings["OMNI_COORDINATOR_BIND"] for p in of(made, Tier.COORDINATOR)] == addresses.split(",")
    assert {p.settings["OMNI_STAGE_COORDINATORS"] for p in of(made, Tier.STAGE)} == {addresses}
    assert made.processes[-1].settings["OMNI_GATEWAY_COORDINATORS"] == addresses


def test_only_stages_that_use_a_gpu_get_the_device_asked_for() -> None:
    read, think, _ = of(planned(Wishes(TOY, device="cuda")), Tier.STAGE)
    assert (read.settings["OMNI_STAGE_DEVICE"], think.settings["OMNI_STAGE_DEVICE"]) == ("cpu", "cuda")


def test_the_model_is_set_only_when_there_is_one() -> None:
    assert "OMNI_STAGE_MODEL" not in named(planned(Wishes(TOY)), "toy-read-0").settings
    with_one = planned(Wishes([replace(TOY[0], model=Path("m"))]))
    assert named(with_one, "toy-read-0").settings["OMNI_STAGE_MODEL"] == "m"


@pytest.mark.parametrize("wishes", [Wishes(TOY, replicas={"sing": 2}), Wishes(TOY, colocate=[("read", "sing")])])
def test_a_stage_that_is_not_there_is_named_with_those_that_are(wishes: Wishes) -> None:
    with pytest.raises(CommandError, match=r"no stage 'sing'\. Pipeline 'toy' has read, think, write\."):
        shape(wishes)


def test_a_stage_cannot_be_in_two_pods() -> None:
    with pytest.raises(CommandError, match="'read' is in two --colocate groups"):
        shape(Wishes(TOY, colocate=[("read", "think"), ("toy/read", "write")]))


def test_where_there_is_one_loopback_address_everything_differs_by_port() -> None:
    ground = Ground(Path("p"), Path("a"), SharedHost((7001, 7002), (7003, 7004), tuple(range(7010, 7018))))
    wishes = Wishes(TOY, coordinators=2)
    made = plan(shape(wishes), wishes, ground)
    assert made.processes[-1].settings["OMNI_GATEWAY_COORDINATORS"] == "127.0.0.1:7001,127.0.0.1:7002"
    assert [p.settings["OMNI_RELAY_BIND"] for p in of(made, Tier.RELAY)] == ["127.0.0.1:7003", "127.0.0.1:7004"]
    assert [p.metrics for p in made.processes] == [f"127.0.0.1:{port}" for port in range(7010, 7018)]


def test_several_pipelines_have_stages_and_pods_of_their_own_behind_one_gateway() -> None:
    made = planned(Wishes(served("a", "b")))
    relays = ["relay-a-front-0", "relay-a-think-0", "relay-b-front-0", "relay-b-think-0"]
    stages = ["a-read-0", "a-think-0", "a-write-0", "b-read-0", "b-think-0", "b-write-0"]
    assert [p.name for p in made.processes] == [*relays, *stages, "coordinator-0", "gateway-0"]
    assert [pod.name for pod in made.pods] == [relay.removeprefix("relay-") for relay in relays]
    assert len({pod.host for pod in made.pods}) == len({pod.folder for pod in made.pods}) == 4
    processes = of(made, Tier.STAGE)
    assert [p.settings["OMNI_STAGE_PIPELINE"] for p in processes] == ["run/a.json"] * 3 + ["run/b.json"] * 3
    assert [p.pipeline for p in processes] == ["a"] * 3 + ["b"] * 3
    assert {p.family: p.settings["OMNI_STAGE_FAMILY"] for p in processes} == {
        "a-family": "a-family",
        "b-family": "b-family",
    }
    (coordinator,) = of(made, Tier.COORDINATOR)
    assert coordinator.settings["OMNI_COORDINATOR_PIPELINES"] == "run/a.json,run/b.json"


def test_each_pipeline_has_its_own_weights() -> None:
    one, other = served("a", "b")
    made = planned(Wishes([one, replace(other, model=Path("m"))]))
    assert {(p.family, p.settings.get("OMNI_STAGE_MODEL")) for p in of(made, Tier.STAGE)} == {
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


def test_traces_of_every_process_go_where_they_are_wished_to() -> None:
    made = planned(Wishes(TOY, otlp="127.0.0.1:4317"))
    for process in made.processes:
        assert process.settings[f"{process.service.upper()}_OTLP_ENDPOINT"] == "127.0.0.1:4317"
    assert not any("OTLP" in name for process in planned(Wishes(TOY)).processes for name in process.settings)
