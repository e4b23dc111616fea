"""When a batch of whole requests is due, and who is in it."""

from __future__ import annotations

import pytest

from omni_common.request import GenerationParams, RequestKey
from omni_stage.core.batching import BatchLimits, BatchQueue
from omni_stage.scheduler.contract import NewRequest


def queue_of(limits: BatchLimits, *costs: float, now: float = 0.0) -> BatchQueue:
    """Requests named by their place in the line, arrived at `now`."""
    queue = BatchQueue(limits)
    for place, cost in enumerate(costs):
        queue.put(NewRequest(RequestKey(str(place)), GenerationParams(), None), cost, now)
    return queue


def names(batch: tuple[NewRequest, ...]) -> str:
    return "".join(request.key.request_id for request in batch)


@pytest.mark.parametrize(
    ("limits", "costs", "batches"),
    [
        pytest.param(BatchLimits(), (1, 1), ["0", "1", ""], id="one at a time by default"),
        pytest.param(BatchLimits(3), (1, 1, 1, 1), ["012", "3", ""], id="no more than there may be in one"),
        pytest.param(BatchLimits(9, max_cost=5), (2, 3, 4, 1), ["01", "23", ""], id="no dearer than it may be"),
        pytest.param(BatchLimits(9, max_cost=5), (7, 1, 7), ["0", "1", "2", ""], id="what is too dear goes alone"),
    ],
)
def test_batches_are_cut_in_order_of_arrival(limits: BatchLimits, costs: tuple[float, ...], batches: list[str]) -> None:
    queue = queue_of(limits, *costs)
    assert [names(queue.take(0.0)) for _ in batches] == batches


def test_a_batch_that_could_grow_waits_for_its_oldest_request_only() -> None:
    queue = queue_of(BatchLimits(4, max_wait=0.5), 1, now=10.0)
    queue.put(NewRequest(RequestKey("late"), GenerationParams(), None), 1, 10.25)
    assert queue.due(10.25) == 0.25
    assert queue.take(10.25) == ()
    assert queue.due(10.5) == 0.0
    assert names(queue.take(10.5)) == "0late"


@pytest.mark.parametrize("limits", [BatchLimits(2, max_wait=9), BatchLimits(9, max_wait=9, max_cost=4)])
def test_a_batch_that_is_full_does_not_wait(limits: BatchLimits) -> None:
    assert queue_of(limits, 2, 2).due(0.0) == 0.0


def test_nobody_waiting_is_nothing_due() -> None:
    queue = queue_of(BatchLimits(2), 1)
    assert queue.remove(RequestKey("0"))
    assert not queue.remove(RequestKey("0"))
    assert queue.due(0.0) is None
    assert queue.take(0.0) == ()
