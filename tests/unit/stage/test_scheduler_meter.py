"""What a scheduler's metrics say."""

from __future__ import annotations

from prometheus_client import REGISTRY

from omni_common.request import GenerationParams, RequestKey
from omni_common.testing.clock import ManualClock
from omni_stage.scheduler.contract import Chunk, Load, NewRequest
from omni_stage.scheduler.meter import StageMeter
from omni_stage.scheduler.simple import SimpleScheduler
from omni_stage.testing.answers import Answers

A, B = RequestKey("a"), RequestKey("b")


def value(name: str, stage: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"stage": stage})


def test_a_request_queues_until_its_first_step_and_runs_until_its_end() -> None:
    clock = ManualClock()
    meter = StageMeter("metered_times", clock)
    meter.arrived(A)
    clock.advance(5)
    meter.step([A], seconds=2)
    clock.advance(4)
    meter.step([A], seconds=1)
    meter.ended(A)
    assert value("omni_stage_queue_seconds_sum", "metered_times") == 3
    assert value("omni_stage_running_seconds_sum", "metered_times") == 6
    assert value("omni_stage_step_seconds_sum", "metered_times") == 3
    assert value("omni_stage_batch_size_count", "metered_times") == 2


def test_a_request_with_several_items_in_a_batch_queues_and_runs_once() -> None:
    clock = ManualClock()
    meter = StageMeter("metered_items", clock)
    meter.arrived(A)
    clock.advance(5)
    meter.step([A, B, A], seconds=2)
    meter.ended(A)
    assert value("omni_stage_batch_size_sum", "metered_items") == 3
    assert value("omni_stage_queue_seconds_sum", "metered_items") == 3
    assert value("omni_stage_queue_seconds_count", "metered_items") == 1
    assert value("omni_stage_running_seconds_sum", "metered_items") == 2


def test_a_request_that_never_ran_has_no_running_time() -> None:
    meter = StageMeter("metered_refusal", ManualClock())
    meter.arrived(A)
    meter.ended(A)
    meter.ended(B)
    meter.load(Load(running=3, waiting=4))
    assert value("omni_stage_running_seconds_count", "metered_refusal") == 0
    assert value("omni_stage_running", "metered_refusal") == 3
    assert value("omni_stage_waiting", "metered_refusal") == 4


def test_a_scheduler_counts_into_the_metrics_of_its_stage() -> None:
    scheduler = SimpleScheduler(lambda request: request.payload, stage="metered_scheduler", max_waiting=1)
    answers = Answers()
    scheduler.start(answers)
    scheduler.submit(Chunk(A, "thinker", 1))
    scheduler.submit(NewRequest(A, GenerationParams(), 1))
    answers.end_of(A)
    scheduler.stop()
    assert value("omni_late_events_total", "metered_scheduler") == 1
    assert value("omni_stage_batch_size_sum", "metered_scheduler") == 1
    assert value("omni_stage_running_seconds_count", "metered_scheduler") == 1
    assert value("omni_stage_running", "metered_scheduler") == 0
