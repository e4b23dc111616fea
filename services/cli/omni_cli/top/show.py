"""The command itself: looks again and again, and shows what has changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import anyio
from rich.console import Console
from rich.live import Live

from omni_cli.cluster.access import Where
from omni_cli.top.rows import rows
from omni_cli.top.source import open_source
from omni_cli.top.tables import tables

# No table is wider; what reads it cuts lines where it likes.
_PLAIN_WIDTH = 400


async def top(urls: Sequence[str], *, interval: float, once: bool, where: Where | None = None) -> None:
    """Until it is cancelled or the mesh has ended; `once` shows one interval and returns. Raises CommandError."""
    terminal = sys.stdout.isatty()
    console = Console() if terminal else Console(width=_PLAIN_WIDTH, no_color=True)
    with ExitStack() as stack:
        live = (
            None
            if once or not terminal
            else stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
        )
        async with open_source(urls, where) as source:
            before = await source.look()
            while True:
                await anyio.sleep(interval)
                now = await source.look()
                shown = tables(rows(before, now), ruled=terminal)
                if live is None:
                    console.print(shown)
                else:
                    live.update(shown, refresh=True)
                if once:
                    return
                before = now
