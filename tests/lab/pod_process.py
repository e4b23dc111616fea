"""A pod as a process of its own, for tests that kill it: prints its address, and ends when its input does."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.pods import Pod, Shape

from omni_relay.watched import end_process_on_thread_death
from omni_relay.wire.sockets import Link


def main() -> None:
    end_process_on_thread_death()
    pod = Pod(Path(sys.argv[1]), Shape(link=Link(timeout=float(sys.argv[2]))))
    print(pod.address, flush=True)
    sys.stdin.read()
    pod.close()


if __name__ == "__main__":
    main()
