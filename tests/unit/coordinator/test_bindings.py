"""Which replica serves which stage."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.errors import OmniError, Overloaded, Reason
from omni_coordinator.core.bindings import Phase, Replica, Visit, bind

ONE = (Visit("thinker", frozenset()),)


def replica(name: str, *, stage: str = "thinker", pod: str = "pod", held: int = 0, full_at: int = 4) -> Replica:
    return Replica(
        number=hash((stage, name)),
        pipeline="p",
        stage=stage,
        name=name,
        address=f"{name}:1",
        pod=pod,
        capacity=full_at,
        phase=Phase.READY,
        outstanding=held,
    )


def chosen(replicas: Sequence[Replica]) -> str:
    return bind(ONE, {"thinker": replicas})["thinker"].name


def test_the_replica_with_the_least_outstanding_work_is_chosen() -> None:
    assert chosen([replica("a", held=2), replica("b", held=1), replica("c", held=3)]) == "b"


def test_work_that_other_coordinators_gave_a_replica_counts_as_well() -> None:
    busy = replica("a")
    busy.reported = 3
    assert chosen([busy, replica("b", held=1)]) == "b"


def test_among_equals_the_first_by_name_is_chosen_whatever_their_order() -> None:
    assert chosen([replica("b"), replica("a")]) == chosen([replica("a"), replica("b")]) == "a"


def test_among_equals_the_pod_of_the_stage_before_wins() -> None:
    visits = (Visit("thinker", frozenset()), Visit("talker", frozenset({"thinker"})))
    replicas = {
        "thinker": [replica("t-0", pod="near")],
        "talker": [replica("a", stage="talker", pod="far"), replica("b", stage="talker", pod="near")],
    }
    assert bind(visits, replicas)["talker"].name == "b"


def test_less_work_wins_over_the_same_pod() -> None:
    visits = (Visit("thinker", frozenset()), Visit("talker", frozenset({"thinker"})))
    replicas = {
        "thinker": [replica("t-0", pod="near")],
        "talker": [replica("a", stage="talker", pod="far"), replica("b", stage="talker", pod="near", held=1)],
    }
    assert bind(visits, replicas)["talker"].name == "a"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.READY])
def test_only_a_ready_replica_gets_requests(phase: Phase) -> None:
    other = replica("a")
    other.phase = phase
    assert chosen([other, replica("b", held=3)]) == "b"


@pytest.mark.parametrize("phase", [None, *(phase for phase in Phase if phase is not Phase.READY)])
def test_a_stage_without_a_ready_replica_is_named_as_unavailable(phase: Phase | None) -> None:
    replicas = []
    if phase is not None:
        replicas.append(replica("a"))
        replicas[0].phase = phase
    with pytest.raises(OmniError, match="'thinker' has no ready replica") as refusal:
        bind(ONE, {"thinker": replicas})
    assert (refusal.value.reason, refusal.value.stage) == (Reason.STAGE_UNAVAILABLE, "thinker")


def test_a_stage_whose_ready_replicas_are_all_full_refuses_as_overloaded() -> None:
    with pytest.raises(Overloaded, match="'thinker' has 5 requests"):
        bind(ONE, {"thinker": [replica("a", held=2, full_at=2), replica("b", held=3, full_at=3)]})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=6))
def test_a_full_replica_is_never_chosen(loads: list[tuple[int, int]]) -> None:
    replicas = [replica(f"r{n}", held=held, full_at=full_at) for n, (held, full_at) in enumerate(loads)]
    if all(held >= full_at for held, full_at in loads):
        with pytest.raises(Overloaded):
            bind(ONE, {"thinker": replicas})
    else:
        picked = bind(ONE, {"thinker": replicas})["thinker"]
        assert picked.outstanding < picked.capacity
        assert picked.outstanding == min(r.outstanding for r in replicas if r.outstanding < r.capacity)
