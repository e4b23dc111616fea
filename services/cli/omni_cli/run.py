"""How every command runs: until it is done or told to stop, and with sentences in place of tracebacks."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import typer

from omni_cli.errors import STOPPED, CommandError, leaves

# SIGHUP: the terminal was closed.
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def said_plainly() -> Iterator[None]:
    """A CommandError becomes its sentence and exit code; any other error stays what it is, a bug to report."""
    try:
        yield
        sys.stdout.flush()
    except (CommandError, ExceptionGroup) as error:
        told = [leaf for leaf in leaves(error) if isinstance(leaf, CommandError)]
        if len(told) != len(list(leaves(error))):
            raise
        if said := "\n".join(filter(None, dict.fromkeys(map(str, told)))):
            print(said, file=sys.stderr)
        raise typer.Exit(max(leaf.code for leaf in told)) from None


def until_stopped(command: Callable[[], Awaitable[None]]) -> bool:
    """Runs a command; the first signal to stop cancels it, and it then takes the time it needs to clean up.

    True when it was stopped before its end.
    """
    return anyio.run(_until_stopped, command)


def to_the_end(command: Callable[[], Awaitable[None]]) -> None:
    """Runs a command for which being stopped is a failure."""
    if until_stopped(command):
        raise typer.Exit(STOPPED)


async def _until_stopped(command: Callable[[], Awaitable[None]]) -> bool:
    with anyio.open_signal_receiver(*_STOP) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_signal, signals, tasks.cancel_scope)
            await command()
            tasks.cancel_scope.cancel()
            return False
    return True


async def _cancel_on_signal(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        print("Stopping.", file=sys.stderr)
        scope.cancel()
        return
