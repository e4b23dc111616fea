"""How many replicas a load needs, by the two laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_cli.capacity.sizing import Load, StageCost, StageShape, needs


def shape(stage: str, group: str = "", shares: str = "", max_running: int | None = None) -> StageShape:
    return StageShape(stage, group or stage, shares or stage, max_running)


def cost(busy: float, held: float = 0.0, steps: float = 10.0, batch: float = 1.0) -> StageCost:
    return StageCost(busy, held, steps, batch)


def replicas(shapes: list[StageShape], costs: dict[str, StageCost], load: Load) -> dict[str, int]:
    return {need.group: need.replicas for need in needs(shapes, costs, load)}


@pytest.mark.parametrize(
    ("busy", "rate", "utilisation", "wanted"),
    [
        pytest.param(0.1, 7.0, 0.7, 1, id="exactly what one may do"),
        pytest.param(0.1, 7.01, 0.7, 2, id="a little more than that"),
        pytest.param(0.5, 10, 0.5, 10, id="half of each is left"),
        pytest.param(0.0, 1000, 0.7, 1, id="nothing to do still needs one"),
    ],
)
def test_a_stage_is_busy_for_each_request(busy: float, rate: float, utilisation: float, wanted: int) -> None:
    assert replicas([shape("a")], {"a": cost(busy)}, Load(rate, utilisation=utilisation)) == {"a": wanted}


def test_stages_that_share_a_gpu_add_up_and_those_beside_it_do_not() -> None:
    costs = {"thinker": cost(0.3), "code2wav": cost(0.2), "preprocess": cost(0.4)}
    pod = [shape("thinker", "g", "gpu"), shape("code2wav", "g", "gpu"), shape("preprocess", "g")]
    (need,) = needs(pod, costs, Load(10, utilisation=1.0))
    assert (need.replicas, need.bound and need.bound.stages) == (5, ("thinker", "code2wav"))


def test_places_are_needed_for_as_long_as_requests_stay() -> None:
    """Little's law: 10 a second that stay 8 s are 80 at once."""
    (need,) = needs([shape("a", max_running=16)], {"a": cost(0.01, held=8.0)}, Load(10, utilisation=1.0))
    assert need.replicas == 5
    assert need.bound is not None
    assert need.bound.places


def test_what_takes_one_step_has_no_places_and_does_not_grow_with_the_answer() -> None:
    once = {"a": cost(0.1, held=100.0, steps=1.0)}
    assert replicas([shape("a", max_running=1)], once, Load(10, stretch=4, utilisation=1.0)) == {"a": 1}
    often = {"a": cost(0.1, steps=2.0)}
    assert replicas([shape("a")], often, Load(10, stretch=4, utilisation=1.0)) == {"a": 4}


def test_a_group_of_which_nothing_was_measured_gets_one_and_says_so() -> None:
    seen, unseen = needs([shape("a"), shape("b", "a"), shape("c")], {"a": cost(0.1)}, Load(1))
    assert (seen.replicas, seen.unmeasured) == (1, ("b",))
    assert (unseen.replicas, unseen.bound, unseen.unmeasured) == (1, None, ("c",))


@given(busy=st.floats(0, 10), held=st.floats(0, 100), rate=st.floats(0.001, 1000), utilisation=st.floats(0.05, 1.0))
def test_no_replica_is_used_more_than_wished(busy: float, held: float, rate: float, utilisation: float) -> None:
    (need,) = needs([shape("a", max_running=8)], {"a": cost(busy, held)}, Load(rate, utilisation=utilisation))
    slack = 1 + 1e-5
    assert rate * busy <= need.replicas * utilisation * slack
    assert rate * held <= need.replicas * 8 * utilisation * slack
