"""A follower: `python -m omni_stage.tensor_parallel.follower LINE PARENT`, started by rank 0 of its stage.

It loads its part of the model and computes what rank 0 says until rank 0 is gone. It has no settings, no ports and no
metrics of its own, and it ends with rank 0 whatever it is doing: by the signal of its parent's death, and by the end of
its line.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import threading
from typing import NoReturn

from omni_common.allocator import keep_freed_memory
from omni_common.lifecycle import leave
from omni_common.telemetry.logs import configure_logs
from omni_stage.models import load_family
from omni_stage.tensor_parallel import order as orders
from omni_stage.tensor_parallel.line import Line
from omni_stage.tensor_parallel.rank import Following, RankFailed

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_NAME_LENGTH = 15


def main() -> NoReturn:
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    _tie_to(int(sys.argv[2]))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # rank 0 says when it is over: it may have requests to finish
    order = line.receive()
    if order is None:
        leave(0)
    threading.Thread(target=_leave_with, args=(line.fileno(),), daemon=True).start()
    keep_freed_memory()
    follow(orders.parse(order), line)


def follow(order: orders.Order, line: Line) -> NoReturn:
    """Loads and obeys, to the end."""
    configure_logs(order.log_level, service="stage")
    _name_process(f"{order.stage}-rank-{order.number}")
    following = Following(order.rank, line)
    try:
        # Found there: rank 0 has asked the same family before it started anybody.
        work = load_family(order.family).followers[order.stage](order.context(), following)
    except ValueError as error:  # what is wrong with the folder, the device or the machine, as at rank 0
        logger.debug("the part cannot be built", exc_info=True)
        following.refuse(str(error))
        leave(1)
    following.loaded()
    try:
        work()
    except RankFailed as error:
        logger.error(str(error), extra={"rank": order.number, "stage": order.stage})  # noqa: TRY400  # a sentence
        leave(1)
    except Exception:
        # The edge of the model's code and of torch's: whatever it is, the replica ends with this process.
        logger.exception("a rank failed", extra={"rank": order.number, "stage": order.stage})
        leave(1)
    leave(0)


def _tie_to(parent: int) -> None:
    """From here on this process dies with the one that started it, even when that is killed, or this one stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _name_process(name: str) -> None:
    """What `ps -o comm` and `top` show: the last characters, which tell ranks apart."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, ctypes.c_char_p(name[-_NAME_LENGTH:].encode()), 0, 0, 0)


def _leave_with(end: int) -> None:
    """The line's end ends the process, also while it computes or waits for another rank."""
    watched = select.poll()
    watched.register(end, select.POLLHUP | select.POLLRDHUP)
    watched.poll()  # no deadline: as long as rank 0 lives
    os._exit(0)


if __name__ == "__main__":
    main()
