"""The command itself: looks again and again, and shows what has changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import anyio
import httpx2
from rich.console import Console
from rich.live import Live

from omni_cli.errors import CommandError
from omni_cli.launcher.folders import base_folder
from omni_cli.launcher.state import newest_state
from omni_cli.settings import CommandSettings
from omni_cli.top.rows import Snapshot, rows
from omni_cli.top.scrape import Target, open_scraper, snapshot
from omni_cli.top.tables import tables

# No table is wider; what reads it cuts lines where it likes.
_PLAIN_WIDTH = 400


async def top(urls: Sequence[str], *, interval: float, once: bool) -> None:
    """Until it is cancelled or the mesh has ended; `once` shows one interval and returns. Raises CommandError."""
    targets = [_target(url) for url in urls] or _of_newest_run()
    terminal = sys.stdout.isatty()
    console = Console() if terminal else Console(width=_PLAIN_WIDTH, no_color=True)
    with ExitStack() as stack:
        live = (
            None
            if once or not terminal
            else stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
        )
        async with open_scraper() as client:
            before = await snapshot(client, targets)
            _refuse_silence(before)
            while True:
                await anyio.sleep(interval)
                now = await snapshot(client, targets)
                _refuse_silence(now)
                shown = tables(rows(before, now), ruled=terminal)
                if live is None:
                    console.print(shown)
                else:
                    live.update(shown, refresh=True)
                if once:
                    return
                before = now


def _of_newest_run() -> list[Target]:
    state = newest_state(base_folder(CommandSettings().runtime_dir))
    if state is None:
        raise CommandError(
            "No mesh of yours runs on this machine. Start one with `omni up`, or say where its processes serve their "
            "metrics: omni top http://host:port/metrics ..."
        )
    return [Target(p.name, f"http://{p.metrics}/metrics", p.pipeline) for p in state.processes]


def _target(address: str) -> Target:
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise CommandError(f"{address} is no URL; one is http://127.0.0.1:9100/metrics.")
    return Target(url.netloc.decode(), str(url if url.path.strip("/") else url.copy_with(path="/metrics")))


def _refuse_silence(snapshot: Snapshot) -> None:
    if all(seen.page is None for seen in snapshot.processes):
        raise CommandError("No process answers: the mesh has ended, or the addresses are not those of its metrics.")
