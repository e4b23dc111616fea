"""Processes that a measurement starts and that end with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_GRACE = 5.0


@contextmanager
def child(module: str, *arguments: str) -> Iterator[str]:
    """Runs `python -m module` inside; gives its first line. Raises ChildProcessError if it prints none."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if not line:
            raise ChildProcessError(f"{module} ended before it was ready.")
        yield line
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
