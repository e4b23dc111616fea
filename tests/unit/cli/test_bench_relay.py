"""From the moments of transfers to where their time went."""

from __future__ import annotations

import io
import json
from dataclasses import astuple

import pytest
from rich.console import Console

from omni_cli.bench.journal import Caught, Pushed, read_journal
from omni_cli.bench.profile import Parts, Round, parts_of, percentile, profile
from omni_cli.bench.tables import table_of

PUSHED = Pushed(source=7, number=1, transport="tcp", asked=10.1, placed=10.3, sent=10.5, ended=11.1)
CAUGHT = Caught(source=7, number=1, begun=10.4, received=10.9, delivered=10.95)
SEEN = Round(pushed=10.0, arrived=11.0, ended=11.2)


def logged(message: str, entry: Pushed | Caught, **other: object) -> str:
    return json.dumps({"ts": "now", "level": "DEBUG", "msg": message, **entry.model_dump(), **other})


def test_transfers_are_found_in_the_logs_of_both_relays() -> None:
    pusher = ["Traceback", '"text"', logged("serving", PUSHED), logged("pushed", PUSHED, edge="a>b")]
    journal = read_journal(pusher, [logged("caught", CAUGHT), logged("pushed", PUSHED)])
    assert journal.pushed == {(7, 1): PUSHED}
    assert journal.caught == {(7, 1): CAUGHT}


def test_the_parts_follow_each_other_and_are_the_whole() -> None:
    parts = parts_of(SEEN, PUSHED, CAUGHT, 0.15)
    assert astuple(parts) == pytest.approx((0.1, 0.2, 0.45, 0.15, 0.1))
    assert parts.total == pytest.approx(SEEN.arrived - SEEN.pushed)


def test_a_profile_is_of_medians_and_of_what_each_byte_costs() -> None:
    rounds = [Round(0.0, seconds, 2 * seconds) for seconds in (0.3, 0.1, 0.2)]
    parts = [Parts(0.0, 0.0, seconds, 0.0, 0.0) for seconds in (0.1, 0.3, 0.2)]
    made = profile(10**9, "tcp", rounds, parts, [6.0, 3.0])
    assert (made.p50, made.p99, made.acknowledged) == (0.2, 0.3, 0.4)
    assert made.parts.wire == 0.2
    assert made.rate == pytest.approx(5.0)
    assert made.cpu == [2.0, 1.0]


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_percentiles_are_values_that_were_measured(percent: int, value: int) -> None:
    assert percentile([float(v) for v in range(100, 0, -1)], percent) == value
    assert percentile([3.0], percent) == 3.0


def test_a_profile_is_a_line_of_the_table() -> None:
    made = profile(1 << 20, "aead", [SEEN], [parts_of(SEEN, PUSHED, CAUGHT, 0.15)], [0.001, 0.002, 0.0])
    console = Console(file=io.StringIO(), width=400, no_color=True)
    console.print(table_of([made]))
    assert isinstance(console.file, io.StringIO)
    head, row = console.file.getvalue().splitlines()
    assert head.split()[:4] == ["size", "by", "p50", "p99"]
    assert " ".join(row.split()) == (
        "1.0 MiB aead 1.0 s 1.0 s 0.00 100.0 ms 200.0 ms 450.0 ms 150.0 ms 100.0 ms 1.2 s 0.95 1.91 0.00"
    )
