"""The baseline: the same stages in one process, handing each other Python objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import anyio.to_thread
from tests.load.ways import DEADLINE, Heard
from tests.parity.in_process import InProcess

from omni_common.request import AudioOutput, GenerationRequest, RequestKey, TextOutput
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.contract import Emit, Incoming, Load, Outbox, Outgoing, Scheduler

Listener = Callable[[Sequence[Outgoing]], None]


class Overheard:
    """A scheduler whose answers somebody else hears first."""

    def __init__(self, scheduler: Scheduler, listener: Listener) -> None:
        self._scheduler = scheduler
        self._listener = listener

    def start(self, outbox: Outbox) -> None:
        def both(items: Sequence[Outgoing]) -> None:
            self._listener(items)
            outbox(items)

        self._scheduler.start(both)

    def stop(self) -> None:
        self._scheduler.stop()

    def submit(self, item: Incoming) -> None:
        self._scheduler.submit(item)

    def abort(self, key: RequestKey) -> None:
        self._scheduler.abort(key)

    def load(self) -> Load:
        return self._scheduler.load()

    def last_step(self) -> float:
        return self._scheduler.last_step()


class OneProcess:
    """Asks the stages of this process; may be asked from many tasks at once."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._heard: dict[str, Heard] = {}
        self._lock = threading.Lock()
        self.stages: InProcess

    async def ask(self, request: GenerationRequest) -> Heard:
        return await anyio.to_thread.run_sync(self._ask, request)

    def hear(self, items: Sequence[Outgoing]) -> None:
        """What a terminal stage says, in the thread of its scheduler."""
        for item in items:
            heard = self._heard.get(item.key.request_id)  # none: the request has failed elsewhere
            if heard and isinstance(item, Emit) and isinstance(item.chunk, TextOutput | AudioOutput):
                heard.output(item.chunk)

    def _ask(self, request: GenerationRequest) -> Heard:
        name = f"request-{next(self._numbers)}"
        heard = self._heard[name] = Heard()
        answer = self.stages.submit(name, request)
        if not answer.over.wait(DEADLINE):
            raise TimeoutError("The stages of one process did not answer.")
        heard.end()
        if answer.error is not None:
            raise answer.error
        del self._heard[name]
        return heard


@contextmanager
def one_process(family: ModelFamily, model: Path | None = None) -> Iterator[OneProcess]:
    asked = OneProcess()
    terminals = {stage.name for stage in family.pipeline.stages if stage.terminal is not None}
    factories = {
        name: partial(_overheard, factory, asked.hear) if name in terminals else factory
        for name, factory in family.factories.items()
    }
    with InProcess(replace(family, factories=factories), model) as asked.stages:
        yield asked


def _overheard(
    factory: Callable[[StageContext], StageProgram], listener: Listener, context: StageContext
) -> StageProgram:
    program = factory(context)
    return replace(program, scheduler=Overheard(program.scheduler, listener))
