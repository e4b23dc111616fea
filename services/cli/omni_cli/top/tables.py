"""Pure: rows as tables of text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from omni_cli.top.rows import EdgeRow, RelayRow, Rows, StageRow

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_NOTHING = "-"


def tables(rows: Rows, *, ruled: bool) -> RenderableType:
    """`ruled`: with lines and bold heads, for a terminal."""
    parts: list[RenderableType] = []
    for table in (
        _pipelines(rows, ruled=ruled),
        _stages(rows, ruled=ruled),
        _edges(rows, ruled=ruled),
        _relays(rows, ruled=ruled),
    ):
        if table.row_count:
            parts += [table, Text()]
    parts += [Text(line, no_wrap=True) for line in _remarks(rows)]
    return Group(*parts)


def _remarks(rows: Rows) -> Iterator[str]:
    if rows.silent:
        yield f"No answer from {', '.join(rows.silent)}."
    if not rows.edges:
        yield "No tensor has been sent yet."


def _pipelines(rows: Rows, *, ruled: bool) -> Table:
    heads = ("replicas", "live", "requests/s", "refused", "first output", "first audio", "RTF")
    table = _table(ruled, "pipeline", *heads, words=1)
    for row in rows.pipelines:
        table.add_row(
            row.pipeline,
            _NOTHING if row.ready is None else str(row.ready),
            str(row.live),
            f"{row.requests_per_second:.1f}",
            str(row.refused),
            time_text(row.first_output),
            time_text(row.first_audio),
            _NOTHING if row.rtf is None else f"{row.rtf:.2f}",
        )
    return table


def _stages(rows: Rows, *, ruled: bool) -> Table:
    table = _table(ruled, "stage", "phase", "live", "waiting", "running", "queue", "refused")
    for row in rows.stages:
        table.add_row(*_stage(row))
    return table


def _stage(row: StageRow) -> tuple[str, ...]:
    counts = (str(row.live), str(row.waiting), str(row.running))
    return (row.replica, row.phase, *counts, time_text(row.queued), str(row.refused))


def _edges(rows: Rows, *, ruled: bool) -> Table:
    heads = ("bytes/s", "tensors/s", "latency", "room wait", "credit wait", "retries", "corrupted")
    table = _table(ruled, "edge", "transport", "why", *heads, words=3)
    for row in rows.edges:
        table.add_row(*_edge(row))
    return table


def _edge(row: EdgeRow) -> tuple[str, ...]:
    return (
        row.edge,
        row.transport,
        row.why or _NOTHING,
        size_text(row.bytes_per_second),
        f"{row.transfers_per_second:.1f}",
        time_text(row.latency),
        time_text(row.room_wait),
        time_text(row.credit_wait),
        str(row.retries),
        str(row.corrupted),
    )


def _relays(rows: Rows, *, ruled: bool) -> Table:
    table = _table(ruled, "relay", "phase", "arena", "in use", "peers", "reclaimed", "damaged", "held by")
    table.columns[-1].justify = "left"
    for row in rows.relays:
        table.add_row(*_relay(row))
    return table


def _relay(row: RelayRow) -> tuple[str, ...]:
    held = ", ".join(f"{holder} {size_text(size)}" for holder, size in row.holders.items())
    sizes = (size_text(row.size), size_text(row.in_use))
    return (row.relay, row.phase, *sizes, str(row.peers), size_text(row.reclaimed), str(row.damaged), held or _NOTHING)


def _table(ruled: bool, *heads: str, words: int = 2) -> Table:
    """The first `words` columns are words, the others numbers."""
    table = Table(box=SIMPLE_HEAD if ruled else None, pad_edge=False, header_style="bold" if ruled else "")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < words else "right", no_wrap=True)
    return table


def size_text(size: float) -> str:
    """At most four digits and a unit."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return _NOTHING
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
