"""What the relays of this machine can move tensors by."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

# Seconds in which the libraries of all transports are loaded many times over.
_DEADLINE = 60.0


def unusable(transports: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each that cannot be used here."""
    asked = [name for name in transports if name != "tcp"]
    if not asked:
        return ()
    command = [sys.executable, "-m", "omni_relay.peers.carriers.usable", *asked]
    try:
        done = subprocess.run(  # noqa: S603  # names that were checked
            command, check=True, capture_output=True, text=True, timeout=_DEADLINE
        )
    except subprocess.SubprocessError:  # a library that crashes or hangs when it is loaded
        return (f"{' or '.join(asked)} cannot be used here: loading its library ended badly.",)
    # Their libraries may have something to say as well.
    return tuple(
        line for line in done.stdout.splitlines() if line.startswith(tuple(f"{name} cannot" for name in asked))
    )
