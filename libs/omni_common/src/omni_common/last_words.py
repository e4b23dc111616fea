"""Why a process cannot start: a sentence for its log, and for the probe that asks whether it is ready.

The probe is the only way to a Kubernetes event for a pod without a token: the kubelet's gRPC prober makes an error and
its message the probe's output (kubernetes, pkg/probe/grpc/grpc.go, since 1.24), and a probe's output when it fails goes
into an event `Unhealthy` (pkg/kubelet/prober/prober.go). Of a probe by HTTP there is only the status.
"""

from __future__ import annotations

import logging
import threading

import anyio
import anyio.to_thread

logger = logging.getLogger(__name__)

_LONGEST = 800
"""Characters of what an event has to say; its own bound is 1024."""


class CannotStart(Exception):
    """Why a service cannot start: a sentence for whoever set it up, and the process's last words. No traceback."""


class LastWords:
    """For whoever asks whether the process is ready. Any thread may ask."""

    def __init__(self) -> None:
        self._why = ""
        self._heard = threading.Event()

    def ask(self) -> str:
        """Empty where there is nothing to say."""
        if self._why:
            self._heard.set()
        return self._why

    async def until_heard(self, why: str, seconds: float, ended: anyio.Event) -> None:
        """Returns when somebody has asked and was told `why`, when the process is asked to end, or after so long."""

        async def wait_for_end() -> None:
            await ended.wait()
            self._heard.set()

        line = " ".join(why.split())
        self._why = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
        logger.info("stays for a probe to hear why it cannot start", extra={"why": self._why, "seconds": seconds})
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for_end)
                await anyio.to_thread.run_sync(self._heard.wait, seconds, abandon_on_cancel=True)
                tasks.cancel_scope.cancel()
        finally:
            self._heard.set()  # lets the thread go


def sentence_of(error: Exception) -> str:
    """The first CannotStart's own, or what else went wrong."""
    first = first_of(error)
    if isinstance(first, CannotStart):
        return str(first)
    return f"The process failed before it could start. {named(first)}"


def named(error: Exception) -> str:
    """As the last line of a traceback has it."""
    return f"{type(error).__name__}: {str(error).rstrip('.')}."


def first_of(error: Exception) -> Exception:
    """The first that is no group, of the CannotStart where there is one."""
    if isinstance(error, ExceptionGroup):
        error = error.split(CannotStart)[0] or error
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
