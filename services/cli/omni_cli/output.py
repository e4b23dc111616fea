"""Standard output that may be closed by its reader, or be on a disk that is full."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys

from omni_cli.errors import CommandError


class OutputLost(CommandError):
    """What the command has to say cannot be said. Without a sentence where its reader has seen enough: it ends as if by
    SIGPIPE, as others do."""

    def __init__(self, error: OSError) -> None:
        left = error.errno == errno.EPIPE
        super().__init__("" if left else f"Cannot write to standard output: {error.strerror}.")
        self.code = 128 + signal.SIGPIPE if left else 1


class _Watched(io.FileIO):
    """A descriptor whose first failed write is told, and which takes whatever comes after it."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # whatever has a buffer, in truth
        try:
            return super().write(data) or 0
        except BlockingIOError:
            raise
        except OSError as error:
            # The interpreter flushes again when it ends: what is left must go somewhere.
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            raise OutputLost(error) from None


def watch_output() -> None:
    """From here on a write to standard output that fails raises OutputLost."""
    stdout = sys.stdout
    if not isinstance(stdout, io.TextIOWrapper):  # it was closed from the beginning
        return
    raw = _Watched(stdout.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        raw if isinstance(stdout.buffer, io.RawIOBase) else io.BufferedWriter(raw),
        encoding=stdout.encoding,
        errors=stdout.errors,
        line_buffering=stdout.line_buffering,
        write_through=stdout.write_through,
    )
