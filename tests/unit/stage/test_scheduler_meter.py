"""What a scheduler's metrics say."""

from __future__ import annotations

import threading

from prometheus_client import REGISTRY

from omni_common.request import GenerationParams, RequestKey
from omni_common.testing.clock import ManualClock
from omni_stage.scheduler.ar_contract import CacheUse
from omni_stage.scheduler.contract import Chunk, Load, NewRequest
from omni_stage.scheduler.meter import StageMeter
from omni_stage.scheduler.simple import SimpleScheduler
from omni_stage.testing.answers import ENOUGH, Answers

A, B, C = (RequestKey(name) for name in "abc")


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


def test_the_oldest_that_waits_is_the_one_that_could_be_worked_on_for_longest() -> None:
    clock = ManualClock()
    meter = StageMeter("metered_oldest", clock)

    def oldest() -> float | None:
        return value("omni_stage_oldest_waiting_seconds", "metered_oldest")

    meter.arrived(A)
    meter.due(A, False)  # its input has not come yet
    clock.advance(7)
    assert oldest() == 0
    meter.due(A, True)
    clock.advance(2)
    meter.arrived(B)
    meter.due(B, True)
    clock.advance(1)
    assert oldest() == 3
    meter.due(A, True)  # more of it waits: since then it has waited no less
    assert oldest() == 3
    meter.begin([A])
    assert oldest() == 1
    meter.due(B, False)  # its way out is full
    assert oldest() == 0
    meter.step([A], seconds=1)
    meter.due(A, True)
    clock.advance(4)
    assert oldest() == 4
    meter.ended(A)
    meter.due(A, True)  # too late
    assert oldest() == 0


def test_a_request_that_waits_for_a_thread_ages_until_its_turn() -> None:
    clock = ManualClock()
    gate, entered = threading.Event(), threading.Event()

    def compute(request: NewRequest) -> object:
        entered.set()
        assert gate.wait(ENOUGH)
        return request.payload

    meter = StageMeter("metered_waiting", clock)
    scheduler = SimpleScheduler(compute, stage="metered_waiting", max_waiting=1, meter=meter)
    answers = Answers()
    scheduler.start(answers)
    scheduler.submit(NewRequest(A, GenerationParams(), 1))
    assert entered.wait(ENOUGH)
    assert value("omni_stage_oldest_waiting_seconds", "metered_waiting") == 0  # it runs
    scheduler.submit(NewRequest(B, GenerationParams(), 1))
    scheduler.abort(C)
    answers.end_of(C)  # and so B has been taken in
    clock.advance(9)
    assert value("omni_stage_oldest_waiting_seconds", "metered_waiting") == 9
    gate.set()
    answers.end_of(B)
    scheduler.stop()
    assert value("omni_stage_oldest_waiting_seconds", "metered_waiting") == 0


def test_caches_and_prompts_are_counted_by_stage() -> None:
    meter = StageMeter("metered_engine", ManualClock())
    meter.prompt(12, 32)
    meter.prompt(3, 0)
    meter.caches(CacheUse(tokens=40, size=4096, kept=512), 0.25)
    for kind, tokens in (("computed", 15), ("prefix_hit", 32)):
        labels = {"stage": "metered_engine", "kind": kind}
        assert REGISTRY.get_sample_value("omni_stage_prompt_tokens_total", labels) == tokens
    assert value("omni_kv_cache_tokens", "metered_engine") == 40
    assert value("omni_kv_cache_bytes", "metered_engine") == 4096
    assert value("omni_prefix_cache_bytes", "metered_engine") == 512
    assert value("omni_kv_cache_usage_ratio", "metered_engine") == 0.25
