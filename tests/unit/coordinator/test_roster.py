"""Who is attached, and what that makes of a pipeline."""

from __future__ import annotations

import pytest

from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import Modality
from omni_coordinator.core.bindings import Phase, Replica
from omni_coordinator.core.roster import Roster

PIPELINE = PipelineConfig(
    name="pair",
    entry="read",
    stages=(StageConfig(name="read", to=("write",)), StageConfig(name="write", terminal=Modality.TEXT)),
    input_modalities=frozenset({Modality.TEXT}),
    output_modalities=frozenset({Modality.TEXT}),
)


def replica(number: int, stage: str, name: str = "r-0", phase: Phase = Phase.READY) -> Replica:
    return Replica(number, "pair", stage, name, f"host:{number}", "pod", 4, phase)


@pytest.fixture
def roster() -> Roster:
    return Roster({"pair": PIPELINE})


def test_a_pipeline_is_ready_when_a_replica_of_every_stage_is(roster: Roster) -> None:
    roster.add(replica(1, "read"))
    assert not roster.state("pair").ready
    second = replica(2, "write", phase=Phase.LOADING)
    roster.add(second)
    assert not roster.state("pair").ready
    second.phase = Phase.READY
    assert roster.state("pair").ready


def test_a_replica_that_leaves_takes_readiness_with_it(roster: Roster) -> None:
    write = replica(2, "write")
    roster.add(replica(1, "read"))
    roster.add(write)
    roster.remove(write)
    roster.remove(write)
    assert not roster.state("pair").ready
    assert roster.replicas("pair")["write"] == ()


def test_a_replica_that_comes_back_takes_the_place_of_its_former_self(roster: Roster) -> None:
    old, new = replica(1, "read"), replica(2, "read")
    assert roster.add(old) is None
    assert roster.add(new) is old
    roster.remove(old)
    assert roster.replicas("pair")["read"] == (new,)
