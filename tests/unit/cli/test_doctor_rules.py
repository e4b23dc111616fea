"""From what a cluster says to sentences: each rule, on what triggers it and on what must not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.lab.kube_facts import NAME, facts, only, sentence, thinker
from tests.lab.kube_objects import (
    NOW,
    Json,
    ago,
    autoscaler,
    container,
    deployment,
    event,
    node,
    pod,
    replica_set,
    running,
    terminated,
    waiting,
)

from omni_cli.doctor.facts import Certificate
from omni_cli.doctor.findings import Finding, Severity
from omni_cli.doctor.rules import diagnose
from omni_cli.top.exposition import parse_page

GPU = container("thinker", limits={"nvidia.com/gpu": "1"})
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 3 No preemption victims found."


def test_of_what_is_well_nothing_is_said() -> None:
    assert diagnose(facts(thinker(), workloads=[deployment("omni-thinker", "stage", "thinker")])) == []


@pytest.mark.parametrize(
    ("reason", "message", "advice"),
    [
        ("ErrImagePull", "failed to resolve reference: 401 Unauthorized", "Log in to the registry"),
        (
            "ErrImagePull",
            "dial tcp: lookup registry: no such host",
            "The node does not reach the registry",
        ),
        ("ImagePullBackOff", 'Back-off pulling image: ErrImagePull: "x": not found', "See the image's name and tag"),
        (
            "ErrImageNeverPull",
            "not present with pull policy of Never",
            "The image must be on the node",
        ),
    ],
)
def test_an_image_that_does_not_come_is_told_with_what_to_do(reason: str, message: str, advice: str) -> None:
    found = only(facts(thinker(ready=False, phase="Pending", statuses=[waiting("thinker", reason, message)])))
    assert found.sentence.startswith(f"thinker cannot get the image omni-thinker:0.1.0: {message}")
    assert found.advice.startswith(advice)


def test_a_secret_that_is_missing_is_told() -> None:
    found = thinker(
        ready=False, statuses=[waiting("thinker", "CreateContainerConfigError", 'secret "omni-keys" not found')]
    )
    assert sentence(facts(found)) == 'thinker cannot start its container thinker: secret "omni-keys" not found.'
    mount = event("Pod", NAME, "FailedMount", 'MountVolume.SetUp failed for volume "tls" : secret "x" not found')
    begins = thinker(ready=False, phase="Pending", statuses=[waiting("thinker", "ContainerCreating")])
    assert sentence(facts(begins, events=[mount])).startswith(
        "thinker cannot begin since 60 minutes: MountVolume.SetUp"
    )


def test_who_was_killed_for_memory_is_told_its_limit_and_the_arena_s_part() -> None:
    box = container("relay", limits={"memory": "512Mi"}, volumeMounts=[{"name": "arena"}])
    arena = [{"name": "arena", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}]
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": ago(minutes=1)}}
    crashes = waiting("relay", "CrashLoopBackOff", last=last)
    down = thinker(ready=False, containers=[box], volumes=arena, statuses=[crashes])
    found = only(facts(down))
    assert (found.severity, found.sentence) == (
        Severity.WRONG,
        "thinker's container relay was killed for its memory; its limit is 512 MiB of memory, of which the arena, "
        "a volume in memory, may take 256 MiB of memory.",
    )
    assert "`relay.arenaSize`" in found.advice
    again = thinker(containers=[box], volumes=arena, statuses=[running("relay", restarts=1, last=last)])
    assert only(facts(again)).severity is Severity.WARNING
    long_ago = {"terminated": {**last["terminated"], "finishedAt": ago(hours=5)}}
    assert diagnose(facts(thinker(containers=[box], statuses=[running("relay", restarts=1, last=long_ago)]))) == []


def test_a_process_that_crashes_is_told_with_its_last_words() -> None:
    down = thinker(ready=False, statuses=[waiting("thinker", "CrashLoopBackOff", restarts=3, last=terminated(1))])
    said = sentence(facts(down, words={(NAME, "thinker"): "No GPU is here."}))
    assert said == (
        "thinker fails: its container thinker ended with code 1. It was started again 3 times. "
        'It said last: "No GPU is here."'
    )
    assert sentence(facts(down)).endswith("It left no last words.")
    log = '{"level": "ERROR", "msg": "No weights."}\n{"level": "INFO", "msg": "ended"}'
    down = thinker(ready=False, statuses=[waiting("thinker", "CrashLoopBackOff", last=terminated(1, message=log))])
    assert sentence(facts(down)).endswith('It said last: "No weights."')


def test_what_the_kubelet_killed_is_told_with_its_reason() -> None:
    down = thinker(ready=False, statuses=[waiting("thinker", "CrashLoopBackOff", restarts=2, last=terminated(137))])
    probe = event("Pod", NAME, "Unhealthy", "Liveness probe failed: service unhealthy")
    said = sentence(facts(down, events=[probe]))
    assert "ended with SIGKILL" in said
    assert said.endswith("The kubelet said: Liveness probe failed: service unhealthy.")


def weights(**status: Any) -> Json:
    return thinker(
        ready=False,
        phase="Pending",
        init=[container("weights")],
        init_statuses=[{"name": "weights", "ready": False, **status}],
        statuses=[waiting("thinker", "PodInitializing")],
    )


def test_weights_that_come_slowly_are_told_with_their_progress() -> None:
    slow = weights(state={"running": {"startedAt": ago(minutes=30)}})
    found = facts(slow, words={(NAME, "weights"): "fetched (percent 12.5)"})
    told = only(found)
    assert told.sentence == (
        'thinker is not ready: it gets its weights since 30 minutes, which says: "fetched (percent 12.5)".'
    )
    assert told.advice.startswith("If that does not move")


def test_a_pod_that_is_not_ready_is_told_with_what_it_waits_for() -> None:
    down = thinker(ready=False, statuses=[running("thinker", ready=False)])
    loading = {NAME: ["thinker is loading, 3 of 4 tensors are there"]}
    assert sentence(facts(down, loading=loading)) == (
        "thinker is not ready since 60 minutes: thinker is loading, 3 of 4 tensors are there."
    )
    probe = event("Pod", NAME, "Unhealthy", "Readiness probe failed: not serving")
    assert sentence(facts(down, events=[probe])).endswith("Readiness probe failed: not serving.")
    fresh = thinker(ready=False, statuses=[running("thinker", ready=False)], age=ago(seconds=20))
    assert only(facts(fresh)).severity is Severity.WARNING


TOLD = (
    "Startup probe failed: error: health rpc probe failed: rpc error: code = FailedPrecondition desc = "
    "Stage 'thinker' cannot start. model.safetensors is cut short."
)


def test_why_a_stage_cannot_load_is_told_from_the_kubelet_s_event_while_the_process_stays() -> None:
    down = thinker(
        ready=False,
        containers=[container("relay"), container("thinker"), container("talker")],
        statuses=[running("relay"), running("thinker", ready=False), running("talker", ready=False)],
        age=ago(seconds=20),
    )
    told = event("Pod", NAME, "Unhealthy", TOLD, container="thinker")
    waits = event("Pod", NAME, "Unhealthy", "Startup probe failed: NOT_SERVING", container="talker", at=ago(seconds=1))
    found = only(facts(down, events=[told, waits], words={(NAME, "thinker"): "stays"}, loading={NAME: ["it is cold"]}))
    assert (found.severity, found.sentence) == (
        Severity.WRONG,
        "thinker is not ready since 20 seconds: Stage 'thinker' cannot start. model.safetensors is cut short.",
    )


def test_what_the_run_before_could_not_do_is_not_told_of_this_one() -> None:
    again = running("thinker", ready=False)
    again["state"]["running"]["startedAt"] = ago(seconds=5)
    told = event("Pod", NAME, "Unhealthy", TOLD, container="thinker")
    found = facts(thinker(ready=False, statuses=[again]), events=[told], loading={NAME: ["thinker is loading"]})
    assert sentence(found) == "thinker is not ready since 60 minutes: thinker is loading."


def test_why_a_stage_could_not_load_is_told_from_the_event_where_its_log_is_gone() -> None:
    down = thinker(ready=False, statuses=[waiting("thinker", "CrashLoopBackOff", restarts=2, last=terminated(1))])
    said = sentence(facts(down, events=[event("Pod", NAME, "Unhealthy", TOLD, container="thinker")]))
    assert said.endswith("It said last: \"Stage 'thinker' cannot start. model.safetensors is cut short.\"")
    other = event("Pod", NAME, "Unhealthy", TOLD, container="talker")
    assert sentence(facts(down, events=[other])).endswith("It left no last words.")


def test_a_pod_that_is_told_to_go_may_end_as_it_likes() -> None:
    killed = {**running("thinker", ready=False), "state": terminated(143)}
    going = thinker(ready=False, statuses=[killed], meta={"deletionTimestamp": ago(seconds=5)})
    assert diagnose(facts(going)) == []
    assert "ended with code 143" in sentence(facts(thinker(ready=False, statuses=[killed])))
    evicted = thinker(phase="Failed", ready=False, statuses=[killed])
    assert sentence(facts(evicted)) == "thinker was ended: nobody says why."


def test_pods_that_were_thrown_out_or_do_not_go_are_told() -> None:
    evicted = thinker(phase="Failed", ready=False)
    evicted["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
    assert sentence(facts(evicted)) == "thinker was ended by its node (evicted): The node was low on resource: memory."
    stays = thinker(meta={"deletionTimestamp": ago(minutes=10)})
    assert sentence(facts(stays)) == "thinker should be gone since 10 minutes, and its node still has it."
    assert diagnose(facts(thinker(meta={"deletionTimestamp": ago(seconds=10)}))) == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('pods "x" is forbidden: exceeded quota: team', "the namespace's quota is used up"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "Pod Security level refuses them"),
        ('admission webhook "policy.example" denied the request', "an admission webhook refuses them"),
        ("no room in the inn", "the cluster refuses them"),
    ],
)
def test_pods_that_may_not_be_made_are_told_by_whose_rule(message: str, said: str) -> None:
    made = replica_set("omni-thinker-1", "omni-thinker", wanted=1, there=0, failure=message)
    found = facts(workloads=[deployment("omni-thinker", "stage", "thinker")], replica_sets=[made])
    assert sentence(found).startswith("thinker gets no pods: ")
    assert said in sentence(found)
    # The event says it before the condition does.
    made = replica_set("omni-thinker-1", "omni-thinker", wanted=1, there=0)
    told = event("ReplicaSet", "omni-thinker-1", "FailedCreate", message)
    assert said in sentence(replace(facts(events=[told], replica_sets=[made]), workloads=found.workloads))


def test_an_update_that_does_not_get_on_and_a_stage_without_pods_are_told() -> None:
    stuck: dict[str, Any] = {
        "conditions": [{"type": "Progressing", "status": "False", "message": "has timed out progressing."}]
    }
    found = facts(thinker(), workloads=[deployment("omni-thinker", "stage", "thinker", **stuck)])
    assert sentence(found) == "The update of thinker does not get on: has timed out progressing."
    found = facts(workloads=[deployment("omni-thinker", "stage", "thinker", replicas=2)])
    assert sentence(found) == "thinker should have 2 pods and has 0."
    found = facts(workloads=[deployment("omni-thinker", "stage", "thinker", replicas=0)])
    assert only(found).severity is Severity.WARNING


def test_an_autoscaler_that_is_blind_or_at_its_end_is_told() -> None:
    ours = [deployment("omni-thinker", "stage", "thinker")]
    blind = autoscaler("h", "omni-thinker", "ScalingActive", "False", "FailedGetPodsMetric", "no metrics returned")
    found = facts(thinker(), workloads=ours, autoscalers=[blind, autoscaler("x", "else", "AbleToScale", "False", "no")])
    assert sentence(found) == "The autoscaler of thinker cannot decide: no metrics returned."
    full = autoscaler("h", "omni-thinker", "ScalingLimited", "True", "TooManyReplicas")
    assert sentence(facts(thinker(), workloads=ours, autoscalers=[full])) == (
        "thinker has as many pods as its autoscaler may give it, 4, and would have more."
    )
    less = autoscaler("h", "omni-thinker", "ScalingLimited", "True", "TooFewReplicas")
    assert diagnose(facts(thinker(), workloads=ours, autoscalers=[less])) == []


def test_generations_and_versions_side_by_side_are_told() -> None:
    pods = [pod(f"t-{n}", "stage", "thinker", generation=g) for n, g in enumerate(("old", "old", "new"))]
    found = facts(*pods, workloads=[deployment("omni-thinker", "stage", "thinker", replicas=3, updated=1)])
    assert sentence(found) == "thinker runs 2 generations side by side: 1 pod of the new one, 2 of old ones."
    found = facts(thinker(), pod("g-1", "gateway", version="0.2.0"))
    assert sentence(found) == "Pods of 2 versions run side by side (0.1.0: thinker; 0.2.0: gateway)."


def test_nodes_that_are_ill_are_told_where_they_run_something() -> None:
    ill = [node("node-a", Ready="False", DiskPressure="True"), node("node-b", Ready="Unknown")]
    told = diagnose(facts(thinker(), nodes=ill))
    assert [(f.severity.name, f.sentence) for f in told] == [
        ("WRONG", "Node node-a, which runs thinker, is not ready: Kubelet stopped posting node status."),
        ("WARNING", "Node node-a, which runs thinker, has DiskPressure: the kubelet may throw pods out."),
    ]


def test_certificates_are_told_before_they_end() -> None:
    def told(**left: float) -> Finding:
        return only(facts(certificates=[Certificate("tls", NOW + timedelta(**left))]))

    assert (told(days=5).severity, told(days=5).sentence) == (
        Severity.WARNING,
        "The certificate in tls expires in 5 days.",
    )
    assert told(days=-5).sentence == "The certificate in tls expired 5 days ago: handshakes are refused."
    assert diagnose(facts(certificates=[Certificate("tls", NOW + timedelta(days=80))])) == []
    page = parse_page(f'omni_certificate_expiry_timestamp_seconds{{certificate="mesh"}} {NOW.timestamp() - 7200}\n')
    assert sentence(facts(pages={"p/c": page})) == (
        "The certificate for mesh that p/c uses expired 2 hours ago: handshakes are refused."
    )


def test_metrics_tell_what_pods_do_not() -> None:
    coordinator = parse_page('omni_ready_replicas{pipeline="qwen3-omni",stage="think"} 0\n')
    stage = parse_page(
        'omni_stage_live_requests{stage="think"} 0\nomni_relay_refused_peers_total{reason="foreign"} 4\n'
    )
    found = facts(thinker(), pages={"coordinator/c": coordinator, f"{NAME}/thinker": stage})
    assert [f.sentence for f in diagnose(found)] == [
        "thinker is ready, but no coordinator knows a replica of its stage think.",
        f"{NAME}/thinker has refused 4 connections of other relays: foreign.",
    ]
    assert only(facts(thinker(), pages={f"{NAME}/thinker": None})).object == "metrics"


def test_what_is_said_of_several_is_said_once() -> None:
    pods = [pod(f"t-{n}", "stage", "thinker", containers=[GPU], unscheduled=NO_GPU) for n in range(3)]
    assert only(facts(*pods)).object == "pod t-0 and 2 more"
