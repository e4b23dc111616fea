"""All measurements, one after the other, each in a process of its own: `make bench`."""

from __future__ import annotations

import subprocess
import sys

MEASUREMENTS = ("hop", "gateway", "tax")


def main() -> None:
    for name in MEASUREMENTS:
        subprocess.run([sys.executable, "-m", f"tests.load.{name}"], check=True)
        print(flush=True)


if __name__ == "__main__":
    main()
