"""What outside libraries change in the process when they are loaded, and the relay does not want."""

from __future__ import annotations

import ctypes
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unchanged() -> Iterator[None]:
    """UCX takes SIGHUP for its own debugging, so that a relay would survive its terminal; NIXL lets logging swallow
    errors. By the C function, since Python's own sets handlers in the main thread only."""
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    handler = set_handler(signal.SIGHUP, None)
    set_handler(signal.SIGHUP, handler)
    raising = logging.raiseExceptions
    try:
        yield
    finally:
        set_handler(signal.SIGHUP, handler)
        logging.raiseExceptions = raising
