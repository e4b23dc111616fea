"""What two relays log from a moment on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio

from omni_cli.bench.journal import Journal, TransferKey, read_journal
from omni_cli.errors import CommandError

# A file tells nobody that it has grown, so it is read again.
_INTERVAL = 0.05
_PATIENCE = 5.0


class LogsSince:
    """The logs of the pushing and the receiving relay, from now on."""

    def __init__(self, pusher: Path, catcher: Path) -> None:
        self._pusher, self._catcher = ((log, log.stat().st_size) for log in (pusher, catcher))

    async def until_both_tell_of(self, transfer: TransferKey) -> Journal:
        """Everything up to that transfer, the last of all. Raises CommandError when a relay does not log it."""
        with anyio.move_on_after(_PATIENCE):
            while True:
                journal = read_journal(_lines(*self._pusher), _lines(*self._catcher))
                if transfer in journal.pushed and transfer in journal.caught:
                    return journal
                await anyio.sleep(_INTERVAL)
        raise CommandError("The relays do not log their transfers: they are of another version than this command.")


def _lines(log: Path, since: int) -> Iterator[str]:
    """Whole ones: the last may be half written."""
    with log.open("rb") as file:
        file.seek(since)
        for line in file:
            if line.endswith(b"\n"):
                yield line.decode(errors="replace")
