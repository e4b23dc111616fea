"""Which of the models that a mesh serves does what."""

from __future__ import annotations

import openai

from omni_cli.errors import CommandError
from omni_common.request import Task


async def model_for(client: openai.AsyncOpenAI, task: Task) -> str:
    """The model for a task when the user names none: one that does nothing else, if there is one; it does it best.

    Raises CommandError.
    """
    able: list[tuple[int, str]] = []
    async for model in client.models.list():
        extension = (model.model_extra or {}).get("omni") or {}
        tasks = extension.get("tasks", ())
        if task in tasks:
            able.append((len(tasks), model.id))
    if not able:
        raise CommandError(f"The mesh serves no model that does {task}.")
    return min(able)[1]
