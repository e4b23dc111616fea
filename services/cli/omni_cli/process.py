"""The process of a command: the descriptors that it needs, an output that may be closed or full, its exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

from omni_cli.descriptors import LEAST_TO_RUN, require_descriptors
from omni_cli.errors import CommandError
from omni_cli.output import OutputLost, watch_output


def run() -> NoReturn:
    """Runs the command of the command line, and ends the process."""
    try:
        require_descriptors(LEAST_TO_RUN)
    except CommandError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
    watch_output()
    try:
        from omni_cli.app import app

        app()
    except OutputLost as lost:  # beside what commands say: help, for example
        _end(lost)
    except SystemExit:
        try:
            sys.stdout.flush()
        except OutputLost as lost:
            _end(lost)
        raise
    sys.exit(0)


def _end(lost: OutputLost) -> NoReturn:
    if str(lost):
        print(lost, file=sys.stderr)
    sys.exit(lost.code)
