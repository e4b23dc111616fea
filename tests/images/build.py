"""The images that the tests look at, built once from this tree; a second build finds its layers and is done in seconds.

`python3 -m tests.images.build` needs nothing but Python itself: it may run while the environment is still made.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

from tests.images.podman import ROOT, environment

FULL = os.environ.get("FULL", "") == "1"
TAG = "tested"
_SECONDS = 1500


def build() -> str:
    """Why it failed; empty when it did not. Of two at a time, the second waits and finds what the first has made."""
    (ROOT / ".omni").mkdir(exist_ok=True)
    with (ROOT / ".omni" / ".images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build()


def _build() -> str:
    names = ["gateway", "coordinator", "relay", "stage", *(["cli"] if FULL else [])]
    # torch is ten times what the rest is; a voice needs none of it.
    asked = {"IMAGE_TOOL": "podman", "IMAGE_PREFIX": "", "IMAGE_TAG": TAG, "STAGE_EXTRAS": "" if FULL else "hub,piper"}
    done = subprocess.run(
        [ROOT / ".ci" / "images.sh", *names],
        env=environment() | asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.stdout[-8000:] or f"it ended with {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(build() or 0)
