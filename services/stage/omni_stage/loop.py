"""The way from other threads onto the stage's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any


class LoopThread:
    """Made on the event loop; `call` may be used from anywhere, finalizers included."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Runs the function soon on the loop; after the loop's end it does nothing, as nobody is left to tell."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)
