"""Threads whose death is noticed: one that ends with an exception nobody expected takes the process with it.

A relay that goes on without one of its threads would look alive and move nothing. Its next life adopts the arena, so
to end is cheap: in-pod traffic does not even notice.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


def start_thread(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    """A daemon: no thread holds up the end of the process."""
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    thread.start()
    return thread


def end_process_on_thread_death() -> None:
    """From now on, in all of this process: one line of log with the traceback, then exit code 1 and no cleaning up."""
    threading.excepthook = _end


def _end(death: threading.ExceptHookArgs) -> None:
    try:
        if death.exc_value is not None:  # None only for SystemExit, which never comes here
            name = death.thread.name if death.thread is not None else "unknown"
            facts = (death.exc_type, death.exc_value, death.exc_traceback)
            logger.critical("a thread died, and the process with it", extra={"died": name}, exc_info=facts)
    finally:
        os._exit(1)
