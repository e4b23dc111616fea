"""How many files and sockets a process may have open. Where there are too few, whatever comes next fails somewhere."""

from __future__ import annotations

import resource

from omni_cli.errors import CommandError

LEAST_TO_RUN = 64
LEAST_FOR_MESH = 256
"""For the launcher and, since limits are handed on, for the largest of its processes with some callers."""


def require_descriptors(least: int) -> None:
    """Raises the limit where it may be raised. Raises CommandError where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= least:
        return
    if hard != resource.RLIM_INFINITY and hard < least:
        raise CommandError(
            f"A process may open {hard} files here, and this needs {least}. Allow more, such as by `ulimit -n 1024`."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
