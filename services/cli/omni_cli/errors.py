"""What the command says instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator

STOPPED = 130
"""The exit code that shells know for Ctrl-C."""


class CommandError(Exception):
    """The command cannot do what it was asked; the message is a sentence for the person at the terminal."""

    code = 1
    """What the command exits with."""


class LaunchFailed(CommandError):
    """The mesh did not come up."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of groups, as task groups nest them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
