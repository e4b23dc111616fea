"""A thread's death in a real process."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import time
from omni_common.telemetry.logs import configure_logs
from omni_relay.watched import end_process_on_thread_death, start_thread

def divide(by):
    print(1 / by, flush=True)

configure_logs("INFO", service="relay")
end_process_on_thread_death()
start_thread("well", divide, 1).join()
start_thread("divider", divide, 0).join()
time.sleep(20)
"""


def test_a_thread_that_dies_takes_the_process_with_it_and_says_so_in_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == 1
    assert ended.stdout == "1.0\n"
    (line,) = ended.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["died"]) == ("CRITICAL", "divider")
    assert "ZeroDivisionError" in record["exception"]
