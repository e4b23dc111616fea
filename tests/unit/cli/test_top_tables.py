"""Rows as text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from omni_cli.top.pipelines import PipelineRow
from omni_cli.top.rows import EdgeRow, RelayRow, Rows, StageRow
from omni_cli.top.tables import size_text, tables, time_text

ROWS = Rows(
    stages=[StageRow("toy-a-0", "serving", live=5, waiting=2, running=3, refused=0, queued=0.04)],
    edges=[
        EdgeRow(
            "toy/a>b",
            "tcp",
            "other_pod",
            bytes_per_second=3 << 20,
            transfers_per_second=2.5,
            latency=0.0125,
            room_wait=0.00002,
            credit_wait=None,
            retries=1,
            corrupted=0,
        )
    ],
    relays=[
        RelayRow(
            "relay-toy-a-0",
            "serving",
            size=128 << 20,
            in_use=48 << 20,
            holders={"peers": 16 << 20, "toy-a-0": 32 << 20},
            reclaimed=0,
            peers=1,
            damaged=0,
        )
    ],
    silent=["toy-b-0"],
    pipelines=[
        PipelineRow(
            "toy",
            live=3,
            requests_per_second=1.5,
            refused=0,
            first_output=0.25,
            first_audio=None,
            rtf=0.42,
            ready=2,
        )
    ],
)


def printed(rows: Rows, *, ruled: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=400, no_color=True)
    console.print(tables(rows, ruled=ruled))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_plain_tables_are_lines_of_columns() -> None:
    assert [" ".join(line.split()) for line in printed(ROWS)] == [
        "pipeline replicas live requests/s refused first output first audio RTF",
        "toy 2 3 1.5 0 250.0 ms - 0.42",
        "",
        "stage phase live waiting running queue refused",
        "toy-a-0 serving 5 2 3 40.0 ms 0",
        "",
        "edge transport why bytes/s tensors/s latency room wait credit wait retries corrupted",
        "toy/a>b tcp other_pod 3.0 MiB 2.5 12.5 ms 20 µs - 1 0",
        "",
        "relay phase arena in use peers reclaimed damaged held by",
        "relay-toy-a-0 serving 128 MiB 48.0 MiB 1 0 B 0 peers 16.0 MiB, toy-a-0 32.0 MiB",
        "",
        "No answer from toy-b-0.",
    ]


def test_what_is_not_there_has_no_table() -> None:
    assert printed(Rows([], [], [], [])) == ["No tensor has been sent yet."]


def test_a_terminal_gets_lines_between() -> None:
    assert any("───" in line for line in printed(ROWS, ruled=True))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (200 << 10, "200 KiB"),
        (5 << 30, "5.0 GiB"),
        (2**60, "1048576 TiB"),
    ],
)
def test_sizes_are_short(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.0, "0 µs"), (0.00045, "450 µs"), (0.0125, "12.5 ms"), (2.25, "2.2 s")]
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert time_text(seconds) == text
