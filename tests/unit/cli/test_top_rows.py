"""What two looks at the processes of a mesh say about its stages, its edges and its relays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from omni_cli.top.change import Seen, Snapshot
from omni_cli.top.exposition import Page, parse_page
from omni_cli.top.pipelines import PipelineRow
from omni_cli.top.rows import EdgeRow, RelayRow, StageRow, rows
from omni_common.errors import Reason
from omni_common.telemetry.names import outcome_of

STAGE = """
omni_build_info{service="stage",version="1"} 1
omni_serving 1
"""
RELAY = """
omni_build_info{service="relay",version="1"} 1
omni_serving 1
"""


def page(text: str) -> Page:
    return parse_page(text)


def seen(name: str, text: str | None, pipeline: str = "toy") -> Seen:
    return Seen(name, pipeline, None if text is None else page(text))


def between(before: Sequence[Seen], now: Sequence[Seen], seconds: float = 2.0) -> tuple[Snapshot, Snapshot]:
    return Snapshot(10.0, before), Snapshot(10.0 + seconds, now)


def sent(number: float, size: float, seconds: float, *, transport: str = "tcp") -> str:
    labels = f'{{edge="a>b",transport="{transport}"}}'
    return STAGE + (
        f"omni_edge_bytes_total{labels} {size}\n"
        f"omni_edge_transfers_total{labels} {number}\n"
        f"omni_edge_transfer_seconds_count{labels} {number}\n"
        f"omni_edge_transfer_seconds_sum{labels} {seconds}\n"
        f"omni_edge_retries_total{labels} 3\n"
        f'omni_edge_credit_wait_seconds_count{{edge="a>b"}} {number}\n'
        f'omni_edge_credit_wait_seconds_sum{{edge="a>b"}} {seconds / 4}\n'
    )


WHY = 'omni_edge_transport_info{edge="a>b",transport="tcp",reason="other_pod"} 1\n'


def edge(before: str | None, now: str, *others: Seen) -> EdgeRow:
    (row,) = rows(*between([seen("toy-a-0", before)], [seen("toy-a-0", now), *others])).edges
    return row


def test_a_stage_has_a_row_with_its_requests() -> None:
    text = (
        STAGE
        + 'omni_stage_live_requests{stage="a"} 5\nomni_stage_waiting{stage="a"} 2\nomni_stage_running{stage="a"} 3\n'
        + "omni_checksum_failures_total 1\n"
    )
    found = rows(*between([], [seen("toy-a-0", text)]))
    assert found.stages == [StageRow("toy-a-0", "serving", live=5, waiting=2, running=3, refused=1)]
    assert (found.edges, found.relays, found.silent) == ([], [], [])


def test_stages_that_share_a_process_have_a_row_each() -> None:
    text = STAGE + "".join(f'omni_stage_live_requests{{stage="{name}"}} {n}\n' for n, name in enumerate("ab"))
    found = rows(*between([], [seen("toy-both-0", text + 'omni_stage_running{stage="b"} 1\n')]))
    assert [(row.replica, row.live, row.running) for row in found.stages] == [
        ("toy-both-0.a", 0, 0),
        ("toy-both-0.b", 1, 1),
    ]


def test_a_stage_that_loads_or_drains_does_not_serve() -> None:
    (row,) = rows(*between([], [seen("toy-a-0", STAGE.replace("omni_serving 1", "omni_serving 0"))])).stages
    assert row.phase == "not serving"


def test_gateways_and_coordinators_are_no_stages_and_the_silent_are_named() -> None:
    gateway = STAGE.replace('service="stage"', 'service="gateway"')
    found = rows(*between([], [seen("gateway-0", gateway, ""), seen("toy-a-0", None)]))
    assert (found.stages, found.relays, found.silent) == ([], [], ["toy-a-0"])


def test_an_edge_shows_what_moved_between_the_two_looks() -> None:
    row = edge(sent(10, 1000, 1.0), sent(14, 5000, 2.0) + WHY)
    assert (row.edge, row.transport, row.why) == ("toy/a>b", "tcp", "other_pod")
    assert (row.bytes_per_second, row.transfers_per_second) == (2000, 2)
    assert row.latency == pytest.approx(0.25)
    assert row.room_wait == pytest.approx(0.0625)
    assert row.retries == 3


def test_where_nothing_moved_the_times_are_those_since_the_process_began() -> None:
    row = edge(sent(10, 1000, 1.0), sent(10, 1000, 1.0))
    assert (row.bytes_per_second, row.transfers_per_second) == (0, 0)
    assert row.latency == pytest.approx(0.1)


def test_a_process_that_began_anew_counts_from_nothing_and_a_new_one_does_not_count_yet() -> None:
    assert edge(sent(100, 90_000, 9.0), sent(2, 400, 0.1)).bytes_per_second == 200
    assert edge(None, sent(100, 90_000, 9.0)).bytes_per_second == 0


def test_an_edge_that_has_sent_nothing_is_shown_with_its_transport() -> None:
    row = edge(STAGE, STAGE + WHY)
    assert (row.transport, row.why, row.latency, row.room_wait, row.credit_wait) == (
        "tcp",
        "other_pod",
        None,
        None,
        None,
    )


def test_a_transport_that_an_edge_no_longer_uses_has_no_reason() -> None:
    assert edge(STAGE, sent(1, 1, 1) + WHY.replace("} 1", "} 0")).why == ""


def test_tensors_in_frames_wait_for_no_room() -> None:
    row = edge(STAGE, sent(10, 1000, 1.0, transport="inline"))
    assert (row.transport, row.room_wait, row.credit_wait) == ("inline", None, None)
    assert edge(STAGE, sent(10, 1000, 1.0, transport="arena")).room_wait == pytest.approx(0.025)


def test_replicas_of_a_stage_are_one_edge() -> None:
    before = [seen("toy-a-0", sent(1, 100, 0.1)), seen("toy-a-1", sent(1, 100, 0.1))]
    now = [seen("toy-a-0", sent(2, 500, 0.2)), seen("toy-a-1", sent(4, 1100, 0.8))]
    (row,) = rows(*between(before, now)).edges
    assert (row.bytes_per_second, row.transfers_per_second) == (700, 2)
    assert row.latency == pytest.approx(0.8 / 4)


def test_pipelines_with_the_same_stages_have_edges_of_their_own() -> None:
    found = rows(*between([], [seen("x-a-0", sent(1, 1, 1), "x"), seen("y-a-0", sent(1, 1, 1), "y")]))
    assert [row.edge for row in found.edges] == ["x/a>b", "y/a>b"]
    found = rows(*between([], [seen("h:1", sent(1, 1, 1), "")]))
    assert [row.edge for row in found.edges] == ["a>b"]


def test_what_the_relays_know_of_an_edge_is_added_to_it() -> None:
    corrupted = outcome_of(Reason.DATA_CORRUPTED)
    ended = 'omni_relay_transfers_total{{edge="a>b",direction="{}",transport="tcp",outcome="{}"}} {}\n'
    relay = (
        RELAY
        + 'omni_relay_credit_wait_seconds_count{edge="a>b"} 4\nomni_relay_credit_wait_seconds_sum{edge="a>b"} 2\n'
        + ended.format("out", corrupted, 2)
        + ended.format("out", "completed", 90)
        + ended.format("in", corrupted, 7)
    )
    row = edge(STAGE, sent(1, 1, 1), seen("relay-toy-a-0", relay))
    assert (row.credit_wait, row.corrupted) == (0.5, 2)


def test_a_relay_shows_who_has_its_arena() -> None:
    text = RELAY + "".join(
        f"{line}\n"
        for line in (
            'omni_relay_arena_bytes{holder="toy-a-0"} 300',
            'omni_relay_arena_bytes{holder="peers"} 100',
            'omni_relay_arena_bytes{holder="toy-b-0"} 0',
            'omni_relay_arena_bytes{holder="free"} 600',
            'omni_relay_reclaimed_bytes_total{holder="toy-a-0"} 64',
            'omni_relay_peers{direction="out",transport="tcp",reason="fastest"} 2',
            'omni_relay_checksum_failures_total{transport="tcp"} 5',
        )
    )
    (row,) = rows(*between([], [seen("relay-toy-a-0", text)])).relays
    assert row == RelayRow(
        "relay-toy-a-0",
        "serving",
        size=1000,
        in_use=400,
        holders={"peers": 100, "toy-a-0": 300},
        reclaimed=64,
        peers=2,
        damaged=5,
    )


def test_a_pipeline_shows_how_its_callers_fare_as_gateways_and_coordinators_count_it() -> None:
    def told(requests: int, speech: float) -> list[Seen]:
        coordinator = (
            f'omni_requests_total{{pipeline="toy",outcome="completed"}} {requests}\n'
            'omni_live_requests{pipeline="toy"} 3\n'
            'omni_ready_replicas{pipeline="toy",stage="a"} 2\nomni_ready_replicas{pipeline="toy",stage="b"} 1\n'
        )
        gateway = (
            f'omni_audio_rtf_count{{pipeline="toy"}} {requests}\nomni_audio_rtf_sum{{pipeline="toy"}} {speech}\n'
            f'omni_time_to_first_output_seconds_count{{pipeline="toy"}} {requests}\n'
            f'omni_time_to_first_output_seconds_sum{{pipeline="toy"}} {speech / 2}\n'
        )
        return [seen("coordinator-0", coordinator, ""), seen("gateway-0", gateway, "")]

    (row,) = rows(*between(told(10, 5.0), told(14, 6.0))).pipelines
    assert row == PipelineRow(
        "toy", live=3, requests_per_second=2, refused=0, first_output=0.125, first_audio=None, rtf=0.25, ready=1
    )


def test_the_queue_is_what_was_waited_between_the_two_looks() -> None:
    def told(number: int, waited: float) -> list[Seen]:
        text = 'omni_stage_live_requests{stage="a"} 1\n'
        text += f'omni_stage_queue_seconds_count{{stage="a"}} {number}\n'
        text += f'omni_stage_queue_seconds_sum{{stage="a"}} {waited}\n'
        return [seen("toy-a-0", STAGE + text)]

    assert rows(*between(told(1, 9.0), told(3, 10.0))).stages[0].queued == 0.5
    assert rows(*between(told(4, 2.0), told(4, 2.0))).stages[0].queued == 0.5
