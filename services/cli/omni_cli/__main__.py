"""`omni`, also as `python -m omni_cli`."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from omni_cli.errors import STOPPED


def main() -> NoReturn:
    # First of all: the imports take seconds in which a person may think better of it.
    signal.signal(signal.SIGINT, _stop)
    from omni_cli.process import run

    run()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Until a command listens by itself there is nothing to clean up that `finally` would not."""
    sys.exit(STOPPED)


if __name__ == "__main__":
    main()
