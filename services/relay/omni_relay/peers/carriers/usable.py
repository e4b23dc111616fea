"""Which carriers cannot be used here: `python -m omni_relay.peers.carriers.usable ucx nixl` prints a sentence for each.

A process of its own, since their libraries start threads and take signals.
"""

from __future__ import annotations

import importlib
import sys
from mmap import PAGESIZE, mmap

from omni_relay.peers.carriers.registry import CARRIERS


def why_not(name: str) -> str | None:
    """Why the carrier of that name cannot be used here; None if it can. Raises KeyError for one that there is not."""
    why: str | None = importlib.import_module(CARRIERS[name]).available(memoryview(mmap(-1, PAGESIZE)))
    return why


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        if (reason := why_not(asked)) is not None:
            sys.stdout.write(f"{asked} cannot be used here: {reason}\n")
