"""The life of a service process: start, serve, drain on SIGTERM or SIGINT, end.

In order: logs, metrics, probes, `build`, `Service.run`; health is SERVING once the service calls `started`. On the
first signal health is NOT_SERVING before anything else happens, then `Service.drain` has the `drain` setting's time,
then `run` is cancelled and the process exits with 0. A second signal cuts the drain short. A service that ends by
itself has failed: the process exits with 1 and says why, in one sentence where it is CannotStart. One that fails
before it has started stays until a probe has heard why, for `stay_failed` at most.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

import anyio
import anyio.abc

from omni_common.allocator import keep_freed_memory
from omni_common.clock import monotonic
from omni_common.deadline import Deadline
from omni_common.health import Hearts, LoopPulse, serve_health
from omni_common.last_words import CannotStart, LastWords, first_of, sentence_of
from omni_common.settings import ServiceSettings, why_refused
from omni_common.telemetry import names
from omni_common.telemetry.export import export_traces
from omni_common.telemetry.logs import configure_logs
from omni_common.telemetry.metrics import describe_build, serve_metrics, version_of, watch_loop

__all__ = ["CannotStart", "Health", "Lifecycle", "Service", "leave", "run_service", "serve"]

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=ServiceSettings)


class Health(Protocol):
    """What outsiders ask whether to send work here, such as an RpcServer."""

    async def set_serving(self, serving: bool) -> None: ...


class Lifecycle:
    """Where the process stands. Calling it says that the service takes work: `started(server)`. `ready` is called
    before anybody else hears of that. `hearts` are what the liveness probe asks for: a service adds its own."""

    def __init__(self, ready: Callable[[], None] = lambda: None) -> None:
        self._ready = ready
        self.hearts = Hearts()
        self.last_words = LastWords()
        self._health: tuple[Health, ...] = ()
        self._started = anyio.Event()
        self._draining = anyio.Event()
        self._refusing = anyio.Event()

    def __call__(self, *health: Health) -> None:
        """`health` is told now that this process serves, and first of all when it no longer does."""
        self._health = health
        self._started.set()

    @property
    def started(self) -> bool:
        return self._started.is_set()

    @property
    def serving(self) -> bool:
        """Started and not about to end: what a readiness probe asks. Any thread."""
        return self.started and not self._draining.is_set()

    async def begin_drain(self) -> None:
        """Returns when health says NOT_SERVING."""
        self._draining.set()
        if self.started:
            await self._refusing.wait()  # no deadline: `tell_health` runs beside it and waits for nothing else

    async def tell_health(self) -> None:
        """Keeps the health in step; the only task that sets it, so that its order is certain."""
        await self._started.wait()
        self._ready()
        logger.info("serving")
        names.SERVING.set(1)
        for health in self._health:
            await health.set_serving(True)
        await self._draining.wait()
        for health in self._health:
            await health.set_serving(False)
        names.SERVING.set(0)
        self._refusing.set()


class Service(Protocol):
    """What a process runs."""

    async def run(self, started: Lifecycle) -> None:
        """Serves until cancelled; calls `started` when it takes work. To return means to have failed."""

    async def drain(self, deadline: Deadline) -> None:
        """Takes nothing new and returns when nothing is left; cancelled at the deadline."""


def run_service(kind: type[Settings], build: Callable[[Settings], Service], **given: Any) -> NoReturn:
    """Reads the settings, but for those that are given, and runs the service that `build` makes of them until a signal
    ends it, and the process with it."""
    name = _name_of(kind)
    keep_freed_memory()
    try:
        settings = kind(**given)
    except ValueError as error:
        configure_logs("INFO", service=name)
        logger.error(why_refused(kind, error))  # noqa: TRY400  # the sentence is all there is to say
        leave(1)
    configure_logs(settings.log_level, service=name)
    describe_build(name)
    try:
        anyio.run(partial(serve, settings, build, ready=_keep_for_good), backend_options={"use_uvloop": True})
    except CannotStart as error:
        logger.error(str(error))  # noqa: TRY400  # the sentence is all there is to say
        leave(1)
    except ExceptionGroup as group:
        sentences, others = group.split(CannotStart)
        if sentences is None or others is not None:
            raise
        logger.error(str(first_of(sentences)))  # noqa: TRY400  # the sentence is all there is to say
        leave(1)
    leave(0)


def leave(code: int) -> NoReturn:
    """Ends the process now. A thread that a library holds for ever, such as a communicator's whose peer is gone, would
    have the interpreter's own way out wait for it, or crash when the library is torn down under it."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code)


async def serve(
    settings: Settings, build: Callable[[Settings], Service], *, ready: Callable[[], None] = lambda: None
) -> None:
    """`run_service` without the process: for a process that has an event loop and its logs already."""
    lifecycle = Lifecycle(ready)
    pulse = LoopPulse()
    lifecycle.hearts.watch("event loop", lambda: pulse.last, settings.loop_timeout.total_seconds())
    name = _name_of(type(settings))
    with (
        _watched_from_outside(settings, lifecycle),
        export_traces(settings, service=name, version=version_of(name)),
    ):
        async with anyio.create_task_group() as tasks:
            signals = await tasks.start(_signals)
            tasks.start_soon(pulse.run)
            tasks.start_soon(watch_loop)
            tasks.start_soon(lifecycle.tell_health)
            try:
                service = build(settings)
                tasks.start_soon(_end_on_signal, signals, lifecycle, service, settings, tasks.cancel_scope)
                await service.run(lifecycle)
            except Exception as error:
                if not lifecycle.started and settings.health_port is not None:
                    stay = settings.stay_failed.total_seconds()
                    # A signal ends it, and must not take the error's place; it is bounded.
                    with anyio.CancelScope(shield=True):
                        await lifecycle.last_words.until_heard(sentence_of(error), stay, signals.first)
                raise
            if not signals.first.is_set():
                raise RuntimeError("the service ended by itself")
            tasks.cancel_scope.cancel()
    logger.info("ended")


def _name_of(kind: type[ServiceSettings]) -> str:
    """Of the service, as its variables' prefix has it."""
    return kind.model_config.get("env_prefix", "").removeprefix("OMNI_").rstrip("_").lower()


@contextmanager
def _watched_from_outside(settings: ServiceSettings, lifecycle: Lifecycle) -> Iterator[None]:
    """With its metrics and its probes, each from threads of their own. Raises CannotStart when a port is another's."""
    host = settings.metrics_host
    probes_of = partial(
        serve_health, ready=lambda: lifecycle.serving, alive=lifecycle.hearts.beat, failed=lifecycle.last_words.ask
    )
    with ExitStack() as stack:
        try:
            metrics = stack.enter_context(serve_metrics(host, settings.metrics_port))
            probes = stack.enter_context(probes_of(host, settings.health_port))
        except OSError as error:
            raise CannotStart(f"A port for metrics or probes cannot be had on {host}: {error}.") from error
        if metrics is not None:
            logger.info("metrics are served", extra={"port": metrics})
        if probes is not None:
            logger.info("probes are served", extra={"port": probes})
        yield


def _keep_for_good() -> None:
    """What a process has when it begins to serve, it has to its end. Frozen, the collector leaves it alone: looking
    through all that a stage with torch and transformers has imported stops every thread for 0.19 s, each time."""
    gc.collect()
    gc.freeze()


class _Signals:
    """Counts the signals that ask the process to end."""

    def __init__(self) -> None:
        self.first = anyio.Event()
        self.second = anyio.Event()


async def _signals(*, task_status: anyio.abc.TaskStatus[_Signals]) -> None:
    signals = _Signals()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started(signals)
        async for number in received:
            logger.info("asked to end", extra={"signal": number.name})
            if signals.first.is_set():
                signals.second.set()
            signals.first.set()


async def _end_on_signal(
    signals: _Signals, lifecycle: Lifecycle, service: Service, settings: ServiceSettings, everything: anyio.CancelScope
) -> None:
    await signals.first.wait()
    if lifecycle.started:
        await lifecycle.begin_drain()
        await _drain(service, Deadline.after(settings.drain.total_seconds(), monotonic), signals.second)
    everything.cancel()


async def _drain(service: Service, deadline: Deadline, cut_short: anyio.Event) -> None:
    async def wait_for_second_signal() -> None:
        await cut_short.wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_second_signal)
        with anyio.move_on_after(deadline.remaining) as scope:
            await service.drain(deadline)
        if scope.cancelled_caught:
            logger.warning("the drain ended with requests still alive")
        tasks.cancel_scope.cancel()
