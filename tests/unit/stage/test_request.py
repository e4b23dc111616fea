"""The life of one request in one stage: lists of events, lists of commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from omni_common.errors import Internal, Reason, StageFailed
from omni_common.request import StageReport
from omni_stage.core import events as ev
from omni_stage.core.inflow import Needs
from omni_stage.core.plan import Plan
from omni_stage.core.request import Hooks, StageRequest

UPSTREAM = StageReport("before", "before-0", 0.0, 0.5, 1.0)
OWN = StageReport("here", "here-0", 1.0, 2.0, 3.0)


def plan(
    *,
    payload_sources: Collection[str] = ("before",),
    wait_for: Collection[str] = (),
    stream_sources: Collection[str] = (),
    payload_targets: tuple[str, ...] = (),
    outflows: Mapping[str, int] | None = None,
    terminal: bool = False,
    window: int = 4,
    route: Collection[str] | None = None,
) -> Plan:
    return Plan(
        stage="here",
        replica="here-0",
        terminal=terminal,
        payload_sources=frozenset(payload_sources),
        wait_for=frozenset(wait_for),
        stream_sources=frozenset(stream_sources),
        window=window,
        payload_targets=payload_targets,
        stream_targets=frozenset(outflows or {}),
        outflows=outflows or {},
        route_of=None if route is None else lambda _: route,
        project_of={"left": lambda value: f"{value} for left"},
    )


def payload(source: str = "before", value: object = "p") -> ev.PayloadArrived:
    return ev.PayloadArrived(source, value, (UPSTREAM,), 1.0)


def run(request: StageRequest, *happenings: ev.Event) -> list[ev.Command]:
    return [command for event in happenings for command in request.handle(event)]


def reasons(commands: list[ev.Command]) -> list[Reason]:
    return [command.error.reason for command in commands if isinstance(command, ev.SendFailed)]


def test_a_payload_runs_and_its_result_is_projected_onto_each_edge() -> None:
    request = StageRequest(plan(payload_targets=("left", "right")), Hooks())
    assert run(request, ev.Introduced(1.0), payload()) == [ev.Begin("p")]
    assert run(request, ev.Finished("r", 3.0)) == [
        ev.SendPayload("left", "r for left", (UPSTREAM, StageReport("here", "here-0", 1.0, 3.0, 3.0))),
        ev.SendPayload("right", "r", (UPSTREAM, StageReport("here", "here-0", 1.0, 3.0, 3.0))),
        ev.AwaitDelivery(),
    ]
    assert not request.over
    assert run(request, ev.Delivered()) == [ev.Forget()]
    assert request.over


def test_a_route_narrows_the_edges_and_may_not_widen_them() -> None:
    narrowed = StageRequest(plan(payload_targets=("left", "right"), route=("right",)), Hooks())
    sent = [c.target for c in run(narrowed, payload(), ev.Finished("r", 3.0)) if isinstance(c, ev.SendPayload)]
    assert sent == ["right"]
    widened = StageRequest(plan(payload_targets=("left",), route=("elsewhere",)), Hooks())
    assert reasons(run(widened, payload(), ev.Finished("r", 3.0))) == [Reason.INTERNAL]


def test_a_stage_without_payload_edges_begins_with_its_envelope() -> None:
    request = StageRequest(plan(payload_sources=(), stream_sources=("before",)), Hooks())
    assert run(request, ev.Introduced(1.0), ev.Introduced(1.5)) == [ev.Begin(None)]


def needs_named(source: str, value: object) -> Collection[str] | None:
    return str(value).split("+") if source == "first" else None


@pytest.mark.parametrize(
    ("needs", "arrivals", "joined"),
    [
        pytest.param(None, [("first", "x"), ("second", "y")], {"first": "x", "second": "y"}, id="all by default"),
        pytest.param(needs_named, [("first", "first")], {"first": "first"}, id="only those needed"),
        pytest.param(
            needs_named,
            [("second", "y"), ("first", "first+second")],
            {"first": "first+second", "second": "y"},
            id="the one that knows comes last",
        ),
    ],
)
def test_payloads_join(needs: Needs | None, arrivals: list[tuple[str, object]], joined: dict[str, object]) -> None:
    sources = ("first", "second")
    request = StageRequest(plan(payload_sources=sources, wait_for=sources), Hooks(needs=needs))
    commands = run(request, *(payload(source, value) for source, value in arrivals))
    assert commands == [ev.Begin(joined)]


def test_a_join_outside_the_declared_stages_fails_the_request() -> None:
    sources = ("first", "second")
    request = StageRequest(plan(payload_sources=sources, wait_for=sources), Hooks(needs=lambda *_: ["third"]))
    assert reasons(run(request, payload("first"))) == [Reason.INTERNAL]


def test_chunks_that_come_before_the_payload_wait_for_it_in_order() -> None:
    request = StageRequest(plan(stream_sources=("tokens",)), Hooks())
    early = run(request, ev.ChunkArrived("tokens", 0, "a", 0.1), ev.ChunkArrived("tokens", 1, "b", 0.2))
    assert early == []
    assert run(request, payload()) == [ev.Begin("p"), ev.PassChunk("tokens", "a"), ev.PassChunk("tokens", "b")]


def test_a_repeated_chunk_changes_nothing_and_a_missing_one_fails_the_request() -> None:
    request = StageRequest(plan(stream_sources=("tokens",)), Hooks())
    run(request, payload(), ev.ChunkArrived("tokens", 0, "a", 1.0))
    assert run(request, ev.ChunkArrived("tokens", 0, "a", 1.1)) == []
    assert reasons(run(request, ev.ChunkArrived("tokens", 2, "c", 1.2))) == [Reason.INTERNAL]


def test_a_stream_that_ends_short_fails_the_request() -> None:
    request = StageRequest(plan(stream_sources=("tokens",)), Hooks())
    assert reasons(run(request, payload(), ev.DoneArrived("tokens", 3, (), 2.0))) == [Reason.INTERNAL]


def test_credits_go_back_in_quarters_of_the_window() -> None:
    request = StageRequest(plan(stream_sources=("tokens",), window=8), Hooks())
    run(request, payload(), *(ev.ChunkArrived("tokens", i, i, 1.0) for i in range(3)))
    assert run(request, ev.InputConsumed("tokens", 1)) == []
    assert run(request, ev.InputConsumed("tokens", 1)) == [ev.ReturnCredit("tokens", 2)]


def test_a_full_way_out_pauses_the_scheduler_and_withholds_credit_until_it_empties() -> None:
    request = StageRequest(plan(stream_sources=("tokens",), outflows={"next": 1}), Hooks())
    run(request, payload(), ev.ChunkArrived("tokens", 0, "a", 1.0))
    assert run(request, ev.Emitted("x", None, 2.0)) == [ev.SendChunk("next", 0, "x")]
    assert run(request, ev.Emitted("y", None, 2.1), ev.Emitted("z", None, 2.2)) == [ev.PauseScheduler()]
    assert run(request, ev.InputConsumed("tokens", 1)) == []
    assert run(request, ev.CreditGranted("next", 1, 2.3)) == [ev.SendChunk("next", 1, "y")]
    assert run(request, ev.CreditGranted("next", 4, 2.4)) == [
        ev.SendChunk("next", 2, "z"),
        ev.ResumeScheduler(),
        ev.ReturnCredit("tokens", 1),
    ]


def test_the_end_of_a_stream_leaves_only_after_its_last_chunk() -> None:
    request = StageRequest(plan(outflows={"next": 1}), Hooks())
    run(request, payload(), ev.Emitted("x", None, 2.0), ev.Emitted("y", None, 2.0))
    assert run(request, ev.Finished(None, 2.5)) == []
    assert run(request, ev.CreditGranted("next", 1, 3.0)) == [
        ev.SendChunk("next", 1, "y"),
        ev.SendDone("next", 2, (UPSTREAM, OWN)),
        ev.AwaitDelivery(),
    ]


def test_a_terminal_stage_sends_to_the_caller_and_completes() -> None:
    request = StageRequest(plan(terminal=True, outflows={ev.CALLER: 8}), Hooks())
    assert run(request, payload(), ev.Emitted("x", None, 2.0), ev.Finished("r", 3.0)) == [
        ev.Begin("p"),
        ev.SendChunk(ev.CALLER, 0, "x"),
        ev.SendCompleted("r", (UPSTREAM, OWN)),
        ev.AwaitDelivery(),
    ]


def test_a_chunk_for_one_of_two_targets_goes_there_alone() -> None:
    request = StageRequest(plan(outflows={"next": 1, "other": 1}), Hooks())
    assert run(request, payload(), ev.Emitted("x", ("other",), 2.0))[1:] == [ev.SendChunk("other", 0, "x")]


def test_a_finished_request_pays_for_late_chunks_until_its_streams_are_done() -> None:
    request = StageRequest(plan(stream_sources=("tokens",), window=4), Hooks())
    run(request, payload(), ev.ChunkArrived("tokens", 0, "a", 1.0))
    assert run(request, ev.Finished(None, 2.0)) == [ev.ReturnCredit("tokens", 1)]
    assert run(request, ev.ChunkArrived("tokens", 1, "b", 2.1)) == [ev.ReturnCredit("tokens", 1)]
    assert not request.over
    assert run(request, ev.DoneArrived("tokens", 2, (), 2.2)) == [ev.AwaitDelivery()]


def test_a_failure_is_told_once_and_the_abort_that_follows_is_acknowledged() -> None:
    request = StageRequest(plan(), Hooks())
    error = StageFailed("here")
    assert run(request, payload(), ev.FailedHere(error)) == [
        ev.Begin("p"),
        ev.AbortScheduler(),
        ev.SendFailed(error),
    ]
    assert run(request, ev.FailedHere(Internal()), ev.Emitted("x", None, 2.0)) == []
    assert run(request, ev.AbortAsked()) == []
    assert run(request, ev.SchedulerDropped()) == [ev.AckAbort(), ev.Forget()]


def test_an_abort_while_running_is_acknowledged_after_the_scheduler_dropped_it() -> None:
    request = StageRequest(plan(), Hooks())
    run(request, payload())
    assert run(request, ev.AbortAsked(), ev.AbortAsked()) == [ev.AbortScheduler()]
    assert run(request, ev.Emitted("x", None, 2.0), ev.Finished("r", 2.0)) == []
    assert run(request, ev.SchedulerDropped()) == [ev.AckAbort(), ev.Forget()]


def test_an_abort_before_the_request_began_is_acknowledged_at_once() -> None:
    request = StageRequest(plan(stream_sources=("tokens",)), Hooks())
    run(request, ev.ChunkArrived("tokens", 0, "a", 1.0))
    assert run(request, ev.AbortAsked(), payload()) == [ev.AckAbort(), ev.Forget()]


def test_what_is_under_way_keeps_a_request_that_is_done_and_its_loss_is_told_once() -> None:
    request = StageRequest(plan(payload_targets=("right",)), Hooks())
    run(request, payload(), ev.Finished("r", 3.0))
    assert run(request, ev.FailedHere(Internal()), payload()) == []
    error = StageFailed("next")
    assert run(request, ev.SendLost(error), ev.SendLost(error), ev.Delivered()) == [ev.SendFailed(error)]
    assert run(request, ev.AbortAsked()) == [ev.AckAbort(), ev.Forget()]


def test_what_is_lost_while_input_still_comes_fails_the_request_too() -> None:
    request = StageRequest(plan(stream_sources=("tokens",), payload_targets=("right",)), Hooks())
    run(request, payload(), ev.Finished("r", 3.0))
    error = StageFailed("next")
    assert run(request, ev.Delivered(), ev.SendLost(error)) == [ev.SendFailed(error)]


def test_what_is_lost_of_a_running_request_stops_it() -> None:
    request = StageRequest(plan(), Hooks())
    error = StageFailed("next")
    assert run(request, payload(), ev.SendLost(error))[1:] == [ev.AbortScheduler(), ev.SendFailed(error)]


def test_an_abort_does_not_wait_for_what_is_under_way() -> None:
    request = StageRequest(plan(payload_targets=("right",)), Hooks())
    run(request, payload(), ev.Finished("r", 3.0))
    assert run(request, ev.AbortAsked(), ev.Delivered()) == [ev.AckAbort(), ev.Forget()]
