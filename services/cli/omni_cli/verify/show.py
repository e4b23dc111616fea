"""The command itself: every model, everything that it can do, a line each, and in the end whether all is well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import httpx2
import openai

from omni_cli.errors import CommandError
from omni_cli.served import Abilities, abilities_of
from omni_cli.verify.trials import TRIALS, Trial, Try

Connect = Callable[[], AbstractAsyncContextManager[openai.AsyncOpenAI]]


async def verify(connect: Connect, *, model: str | None, timeout: float) -> None:
    """`timeout`: seconds that each trial may take. Raises CommandError when anything is wrong."""
    tried = failed = 0
    for name, abilities in await _served(connect, model, timeout):
        async for what, trial in _trials(connect, name, abilities, timeout=timeout):
            tried += 1
            failed += bool(trial.wrong)
            print(f"{name} {what}: {_verdict(trial)}", flush=True)
    if failed:
        raise CommandError(f"{failed} of {tried} trials failed.")


def _verdict(trial: Trial) -> str:
    measured = ", ".join(trial.measured)
    if not trial.wrong:
        return f"ok; {measured}" if measured else "ok"
    return f"FAILED: {' '.join(trial.wrong)}{f' Measured: {measured}.' if measured else ''}"


async def _served(connect: Connect, model: str | None, timeout: float) -> list[tuple[str, Abilities]]:
    """Raises CommandError when there is nothing to try."""
    served: list[tuple[str, Abilities]] = []
    with anyio.move_on_after(timeout) as scope:
        async with connect() as client:
            served = [(found.id, abilities_of(found)) async for found in client.models.list()]
    if scope.cancelled_caught:
        raise CommandError(f"The mesh did not say in {timeout:g} s which models it serves.")
    if not served:
        raise CommandError("The mesh serves no model.")
    chosen = [(name, abilities) for name, abilities in served if model in {None, name}]
    if not chosen:
        raise CommandError(f"The mesh serves no model {model}; it serves {', '.join(name for name, _ in served)}.")
    return chosen


async def _trials(
    connect: Connect, model: str, abilities: Abilities, *, timeout: float
) -> AsyncIterator[tuple[str, Trial]]:
    if not abilities.ready:
        yield "ready", Trial((), ["A stage of it is not ready; `omni doctor` says which and why."])
        return
    kinds = [task for task in TRIALS if task in abilities.tasks]
    if not kinds:
        yield "tasks", Trial((), ["The mesh does not say that it does anything that can be tried."])
    for task in kinds:
        yield task, await _within(connect, TRIALS[task], model, abilities, timeout=timeout)


async def _within(connect: Connect, attempt: Try, model: str, abilities: Abilities, *, timeout: float) -> Trial:
    """However it goes wrong, it is a sentence, and the next trial is made."""
    with anyio.move_on_after(timeout):
        try:
            async with connect() as client:
                return await attempt(client, model, abilities)
        except CommandError as error:
            return Trial((), [str(error)])
        except (ValueError, httpx2.RequestError) as error:  # a stream that is not what OpenAI's would be
            return Trial((), [f"The answer cannot be read: {type(error).__name__}."])
    return Trial((), [f"It was not done in {timeout:g} s."])
