"""Pure: profiles as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from omni_cli.bench.profile import Profile
from omni_cli.top.tables import size_text, time_text

_HEADS = ("size", "by", "p50", "p99", "GB/s", "hand-over", "credit wait", "wire", "verification", "arrival", "known")
_CPU_HEADS = ("pusher", "catcher", "clients")


def table_of(profiles: Sequence[Profile]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for head in (*_HEADS, *(f"CPU s/GB {process}" for process in _CPU_HEADS)):
        table.add_column(head, justify="right", no_wrap=True)
    for profile in profiles:
        table.add_row(*_row(profile))
    return table


def _row(profile: Profile) -> tuple[str, ...]:
    parts = profile.parts
    times = (parts.hand_over, parts.credit_wait, parts.wire, parts.verification, parts.arrival, profile.acknowledged)
    return (
        size_text(profile.size),
        profile.transport,
        time_text(profile.p50),
        time_text(profile.p99),
        f"{profile.rate:.2f}",
        *map(time_text, times),
        *(f"{seconds:.2f}" for seconds in profile.cpu),
    )
