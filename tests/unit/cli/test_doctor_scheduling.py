"""Pods that no node takes: what they wait for, in sentences."""

from __future__ import annotations

from typing import Any

import pytest
from tests.lab.kube_facts import facts, only, sentence, thinker
from tests.lab.kube_objects import Json, ago, container, event, foreign_pod, node

from omni_cli.doctor.rules import diagnose

GPU = container("thinker", limits={"nvidia.com/gpu": "1"})
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 3 No preemption victims found."


@pytest.mark.parametrize(
    ("nodes", "others", "said"),
    [
        pytest.param(
            [node("g1", gpus=1), node("g2", gpus=1)],
            (foreign_pod("a", "g1", gpu="1"), foreign_pod("b", "g2", gpu="1")),
            "thinker waits for 1 × nvidia.com/gpu; 2 nodes have it, all in use by others/a, others/b.",
            id="all in use",
        ),
        pytest.param([node("a")], (), "thinker waits for 1 × nvidia.com/gpu, and no node has it.", id="no node"),
        pytest.param(
            [node("g1", gpus=1)],
            tuple(foreign_pod(f"p{n}", "g1", gpu="1") for n in range(8)),
            "thinker waits for 1 × nvidia.com/gpu; 1 node has it, all in use by others/p0, others/p1, others/p2, "
            "others/p3, others/p4, others/p5 and 2 more.",
            id="many holders",
        ),
        pytest.param(
            [node("g1", gpus=4)],
            (foreign_pod("a", "g1", gpu="1"),),
            "thinker waits for 1 × nvidia.com/gpu; 1 node has it, 3 of it left, the rest in use by others/a.",
            id="some left",
        ),
        pytest.param(None, (), "thinker waits for 1 × nvidia.com/gpu; which nodes have it may not be seen.", id="none"),
    ],
)
def test_who_waits_for_a_gpu_is_told_who_has_it(nodes: Any, others: tuple[Json, ...], said: str) -> None:
    assert sentence(facts(thinker(containers=[GPU], unscheduled=NO_GPU), others=others, nodes=nodes)) == said


def test_more_than_any_node_has_is_never_given() -> None:
    greedy = container("thinker", requests={"cpu": "64", "memory": "100Gi"})
    found = facts(thinker(containers=[greedy], unscheduled="0/1 nodes are available: 1 Insufficient cpu."))
    assert only(found).sentence == "thinker waits for 64 CPUs; 1 node has it, with 8 CPUs at most."
    assert only(found).advice == "Ask for less: no node can ever give 64 CPUs."


def test_memory_that_others_have_is_told_with_what_is_left() -> None:
    greedy = container("thinker", requests={"memory": "20Gi"})
    short = "0/1 nodes are available: 1 Insufficient memory."
    found = facts(
        thinker(containers=[greedy], unscheduled=short), others=(foreign_pod("big", "node-a", memory="16Gi"),)
    )
    assert sentence(found) == (
        "thinker waits for 20.0 GiB of memory; most is left on node-a: 16.0 GiB of memory of 32.0 GiB of memory."
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param(
            "0/2 nodes are available: 2 node(s) had untolerated taint {nvidia.com/gpu: present}. preemption: no.",
            "No node takes thinker: 2 nodes have the taint nvidia.com/gpu: present, which it does not tolerate.",
            id="taint",
        ),
        pytest.param(
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            "No node takes thinker: 3 of the nodes do not match its node selector or affinity.",
            id="selector",
        ),
        pytest.param(
            'persistentvolumeclaim "weights" not found',
            "thinker waits for the volume claim weights, which there is not.",
            id="no claim",
        ),
        pytest.param(
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            "thinker waits for a volume that nothing provides: no class is the default.",
            id="unbound claim",
        ),
        pytest.param(
            "1 node went fishing.",
            "No node takes thinker: 1 node went fishing.",
            id="new",
        ),
    ],
)
def test_other_reasons_of_the_scheduler_are_put_plainly(message: str, said: str) -> None:
    failed = event("PersistentVolumeClaim", "weights", "ProvisioningFailed", "no class is the default")
    assert sentence(facts(thinker(unscheduled=message), events=[failed])) == said


def test_a_pod_that_no_scheduler_has_seen_is_told_after_a_while() -> None:
    unseen = thinker(phase="Pending", node="", ready=False, statuses=[], age=ago(minutes=5))
    assert sentence(facts(unseen)) == "No scheduler has looked at thinker."
    fresh = thinker(phase="Pending", node="", ready=False, statuses=[], age=ago(seconds=5))
    assert diagnose(facts(fresh)) == []
