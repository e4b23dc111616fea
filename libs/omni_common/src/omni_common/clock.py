"""Time is injected: whoever measures it takes a Clock."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds on a clock that never goes back. Its zero means nothing, so readings never leave the process."""

monotonic: Clock = time.monotonic
