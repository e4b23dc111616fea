"""What the models that a mesh serves can do, and which of them does what."""

from __future__ import annotations

from collections.abc import Sequence

import openai
from openai.types import Model
from pydantic import BaseModel, ValidationError

from omni_cli.errors import CommandError
from omni_common.request import Task


class Abilities(BaseModel):
    """What the gateway says of a model beside OpenAI's fields; empty where another server says nothing."""

    ready: bool = True
    tasks: Sequence[str] = ()
    input_modalities: Sequence[str] = ()
    output_modalities: Sequence[str] = ()
    voices: Sequence[str] = ()


def abilities_of(model: Model) -> Abilities:
    """Raises CommandError."""
    try:
        return Abilities.model_validate((model.model_extra or {}).get("omni", {}))
    except ValidationError as error:
        raise CommandError("What the mesh says of its models is not understood.") from error


async def model_for(client: openai.AsyncOpenAI, task: Task) -> str:
    """The model for a task when the user names none: one that does nothing else, if there is one; it does it best.

    Raises CommandError.
    """
    able: list[tuple[int, str]] = []
    async for model in client.models.list():
        tasks = abilities_of(model).tasks
        if task in tasks:
            able.append((len(tasks), model.id))
    if not able:
        raise CommandError(f"The mesh serves no model that does {task}.")
    return min(able)[1]
