"""What a process keeps of the memory that it frees: counted in the pages that the system has to give it anew."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import resource, sys
from omni_common.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    kept = [b'x' * (4 << 20) for _ in range(8)]
use()
before = faults()
for _ in range(10):
    use()
print(faults() - before)
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", _SCRIPT, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)


def test_large_messages_come_to_lie_in_pages_that_are_there() -> None:
    assert _faults("keep") * 10 < _faults("return")
